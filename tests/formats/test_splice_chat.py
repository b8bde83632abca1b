"""The splice of chat completions: the requests sent upstream, and the one answer that the client gets."""

from __future__ import annotations

import json

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from aibridge_flask import sse
from aibridge_flask.formats import CHAT
from aibridge_flask.model import Offer, RequestFacts, Tool, ToolResult
from tests.support.chat import (
    DONE,
    call,
    chunk,
    completion,
    event,
    message,
    more_arguments,
    role,
    stream,
    text,
    token_counts,
    tool_call,
    usage,
    whole,
)
from tests.support.exchanges import OWN, RECORDED, load

ADD = Tool("bmcp_sum_add", "sum", "http://sum/mcp", "add", "Adds.", {"type": "object", "properties": {}})
SEEK = Tool("bmcp_sum_seek", "sum", "http://sum/mcp", "seek", "Seeks.", {"type": "object", "properties": {}})
TOOLS = (ADD, SEEK)
FACTS = RequestFacts(model="gpt-5", streaming=True)
ASK = b'{"model": "gpt-5","seed":1e2, "messages": [{"role":"user","content":"h\\u0069"} ],"stream":true}'
SIZES = pytest.mark.parametrize("size", [0, 1, 7, 100])
THREE = ToolResult(content=({"type": "text", "text": "3"},))


def offer_tools(body: bytes = ASK, facts: RequestFacts = FACTS, tools: tuple[Tool, ...] = TOOLS) -> Offer:
    return CHAT.offer(body, facts, tools)


def feed(fold: object, answer: bytes, size: int) -> bytes:
    """Feeds an answer in pieces of `size` bytes (0: one); returns what comes out."""
    step = size or len(answer) or 1
    pieces = [answer[i : i + step] for i in range(0, len(answer), step)]
    return b"".join([*(fold.feed(piece) for piece in pieces), fold.end()])


def follow_up_body(fold: object, result: ToolResult = THREE) -> bytes:
    """Returns the next request's body; every call has the same result."""
    assert fold.awaits_tools
    assert not fold.complete
    return fold.follow_up([(call, result) for call in fold.turn().tool_calls])


def client_stream(*answers: bytes, size: int = 0, facts: RequestFacts = FACTS) -> bytes:
    """What the client gets of answers, each of which but the last calls offered tools only."""
    fold = CHAT.splice(offer_tools(), facts)
    out = b""
    for number, answer in enumerate(answers):
        if number:
            follow_up_body(fold)
        out += feed(fold, answer, size)
    assert not fold.awaits_tools
    return out


def accumulate(stream: bytes) -> dict[str, object]:
    """The completion that the official package makes of a stream."""
    state = ChatCompletionStreamState()
    for block in sse.split(stream):
        data = sse.parse(block).data
        if data and data != b"[DONE]":
            members = {"object": "chat.completion.chunk", "created": 1, "model": "m", **json.loads(data)}
            state.handle_chunk(ChatCompletionChunk.model_validate(members))
    return state.get_final_completion().to_dict(exclude_none=True)


# The first request


def test_tools_come_after_the_clients_own() -> None:
    own = b'[ {"type":"function", "function":{"name":"own","parameters":{"x":1e2}}} ]'
    body = ASK[:-1] + b', "tools" : ' + own + b', "parallel_tool_calls":true, "last":"\\ud800"}'
    offer = offer_tools(body)
    assert offer.tools == TOOLS
    offered_tools = [
        {
            "type": "function",
            "function": {"name": tool.id, "description": tool.description, "parameters": tool.input_schema},
        }
        for tool in TOOLS
    ]
    tools = own[:-1] + b"," + json.dumps(offered_tools, separators=(",", ":")).encode()[1:]
    assert offer.body == (
        b'{"model":"gpt-5","seed":1e2,"messages":[{"role":"user","content":"h\\u0069"} ],"stream":true,'
        b'"tools":' + tools + b',"parallel_tool_calls":false,"last":"\\ud800"}'
    )


@pytest.mark.parametrize(
    "members", [b"", b',"tools":null', b',"tools":[]', b',"n":1', b',"n":null,"tool_choice":"required"']
)
def test_tools_are_offered_to_a_client_without_tools(members: bytes) -> None:
    request = json.loads(offer_tools(ASK[:-1] + members + b"}").body)
    assert [tool["function"]["name"] for tool in request["tools"]] == ["bmcp_sum_add", "bmcp_sum_seek"]
    assert request["parallel_tool_calls"] is False


@pytest.mark.parametrize(
    "body",
    [
        ASK[:-1] + b',"tool_choice":"none"}',
        ASK[:-1] + b',"n":2}',
        ASK[:-1] + b',"functions":[{"name":"old"}]}',
        ASK[:-1] + b',"tools":{}}',
        ASK[:-1] + b',"model":"twice"}',
        b'{"model":"gpt-5","messages":"hi"}',
        b'{"model":"gpt-5"}',
    ],
)
def test_a_request_that_can_have_no_tools_stays_as_it_is(body: bytes) -> None:
    assert offer_tools(body) == Offer(body)


def test_a_tool_with_the_name_of_a_client_tool_is_left_out() -> None:
    own = b'{"type":"function","function":{"name":"bmcp_sum_add"}}'
    offer = offer_tools(ASK[:-1] + b',"tools":[' + own + b"]}")
    assert offer.tools == (SEEK,)
    assert offer.body.count(b"bmcp_sum_add") == 1
    other = b'{"type":"function","function":{"name":"bmcp_sum_seek"}}'
    body = ASK[:-1] + b',"tools":[' + own + b"," + other + b"]}"
    assert offer_tools(body) == Offer(body)


@pytest.mark.parametrize(
    ("schema", "sent"),
    [
        ({"type": "object"}, {"type": "object", "properties": {}}),
        ({}, {"type": "object", "properties": {}}),
        (
            {
                "$defs": {"a": {"type": "object"}},
                "type": "object",
                "properties": {"a": {"$ref": "#/$defs/a"}},
            },
            {"type": "object", "properties": {"a": {"type": "object"}}},
        ),
    ],
)
def test_schemas_are_sent_whole(schema: dict[str, object], sent: dict[str, object]) -> None:
    tool = Tool("bmcp_sum_add", "sum", "http://sum/mcp", "add", "Adds.", schema)
    (offered_tool,) = json.loads(offer_tools(tools=(tool,)).body)["tools"]
    assert offered_tool["function"] == {"name": "bmcp_sum_add", "description": "Adds.", "parameters": sent}


def test_a_description_that_the_api_would_refuse_is_clipped() -> None:
    tool = Tool("bmcp_sum_add", "sum", "http://sum/mcp", "add", "é" * 2000, {})
    (offered_tool,) = json.loads(offer_tools(tools=(tool,)).body)["tools"]
    assert offered_tool["function"]["description"] == "é" * 1024


@pytest.mark.parametrize("model", ["o3", "o4-mini-2025-04-16", "openai/o1"])
def test_models_that_refuse_parallel_tool_calls_do_not_get_it(model: str) -> None:
    facts = RequestFacts(model=model)
    assert b"parallel" not in offer_tools(facts=facts).body
    own = ASK[:-1] + b',"parallel_tool_calls":true}'
    assert json.loads(offer_tools(own, facts).body)["parallel_tool_calls"] is True


# Answers without a call of an offered tool

OWN_CALLS = call("c1", 0, "own_a", '{"') + more_arguments("c1", 0, 'x":1}') + call("c1", 1, "own_b", "{}")
LAST = {"finish_reason": "stop", "index": 0, "delta": {"content": None}}
PLAIN = {
    "text": role("c1")
    + text("c1", "Hi")
    + text("c1", "there")
    + chunk("c1", {}, "stop")
    + usage("c1", 9, 4)
    + DONE,
    "own calls": role("c1") + OWN_CALLS + chunk("c1", {}, "tool_calls") + usage("c1", 9, 4) + DONE,
    "calls without index": call("c1", None, "own_a", "{}") + call("c1", None, "own_b", "{}") + DONE,
    "legacy call": chunk(
        "c1", {"function_call": {"name": "bmcp_sum_add", "arguments": "{}"}}, "function_call"
    )
    + DONE,
    "own call of an odd number": call("c1", 3, "own_a", "{}") + chunk("c1", {}, "tool_calls") + DONE,
    "nameless call": chunk("c1", {"tool_calls": [{"index": 0, "id": "x", "function": {}}]})
    + text("c1", "?")
    + DONE,
    "usage with the end": text("c1", "Hi") + chunk("c1", {}, "stop", usage=token_counts(9, 4)) + DONE,
    "usage in each": chunk("c1", {"content": "Hi"}, usage=token_counts(9, 1))
    + chunk("c1", {}, "stop", usage=token_counts(9, 4)),
    "the end with text": text("c1", "Hi") + chunk("c1", {"content": "!"}, "stop"),
    "no end": role("c1") + text("c1", "Hi"),
    "no end after a call": call("c1", 0, "own_a", '{"x'),
    "two choices": text("c1", "Hi")
    + chunk("c1", {}, "stop")
    + event(id="c1", choices=[{**LAST, "index": 1}])
    + DONE,
    "spaces": text("c1", "Hi").replace(b":", b" : ").replace(b"data : ", b"data: ")
    + chunk("c1", {}, "stop")
    + DONE,
    "no id": text("", "Hi") + event(choices=[LAST]) + DONE,
    "filter first": event(id="", choices=[], prompt_filter_results=[{}])
    + role("c1")
    + text("c1", "Hi")
    + DONE,
    "an error": text("c1", "Hi") + event(error={"message": "no", "type": "server_error"}) + DONE,
    "an error after the end": chunk("c1", {}, "stop") + event(error={"message": "no"}),
    "words in texts": text("c1", '"finish_reason":"stop","tool_calls":[] [DONE]')
    + text("c1", "data: {\n\n")
    + DONE,
    "comments": b": hello\n\n"
    + text("c1", "Hi")
    + b": ping\n\n"
    + chunk("c1", {}, "stop")
    + b":\n\n"
    + DONE
    + b": bye\n\n",
    "names and ids": b"id: 7\nevent: chunk\n"
    + text("c1", "Hi")
    + b"retry: 9\n\n"
    + chunk("c1", {}, "stop")
    + DONE,
    "torn data": b'data: {"id":"c1","choices":\ndata: [{"index":0,"delta":{"content":"x"},"finish_reason":\ndata: "stop"}]}\n\n'
    + DONE,
    "junk": b"data: {\n\ndata: 7\n\ndata: [1]\n\ndata: null\n\n"
    + event(choices=[None, 7, {"delta": [], "index": "x"}])
    + DONE,
    "strange calls": event(
        id="c1", choices=[{"delta": {"tool_calls": [None, 7, {"function": 1}, {"index": True}]}}]
    )
    + DONE,
    "no last line": text("c1", "Hi") + b"data: [DONE]",
}


@SIZES
@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("answer", PLAIN.values(), ids=PLAIN)
def test_an_answer_without_offered_calls_passes_byte_for_byte(
    answer: bytes, ending: bytes, size: int
) -> None:
    answer = answer.replace(b"\n", ending)
    assert client_stream(answer, size=size) == answer


@SIZES
@pytest.mark.parametrize(
    "exchange",
    [
        exchange
        for exchange in load(OWN) + load(RECORDED)
        if exchange.streaming and "/chat/" in exchange.route
    ],
)
def test_recorded_streams_pass_byte_for_byte(exchange: object, size: int) -> None:
    answer = exchange.status_and_body()[1]
    tools = (Tool("bmcp_other_x", "other", "http://x", "x", "", {}),)
    fold = CHAT.splice(offer_tools(tools=tools), FACTS)
    assert feed(fold, answer, size) == answer
    assert not fold.awaits_tools


def test_text_does_not_wait() -> None:
    fold = CHAT.splice(offer_tools(), FACTS)
    for events in (
        role("c1"),
        text("c1", "a"),
        text("c1", "b") + text("c1", "c"),
        call("c1", 0, "own", "{"),
        more_arguments("c1", 0, "}"),
    ):
        assert fold.feed(events) == events
    end = chunk("c1", {}, "stop")
    assert fold.feed(end) == end  # a call of the client's own: nothing can follow
    assert fold.at_event_boundary


def test_the_end_waits_for_other_choices() -> None:
    fold = CHAT.splice(offer_tools(), FACTS)
    end = chunk("c1", {"content": "!"}, "stop")
    assert fold.feed(text("c1", "Hi") + end) == text("c1", "Hi")
    assert fold.feed(DONE) == end + DONE


@SIZES
def test_a_usage_that_the_client_did_not_ask_for_is_held_back(size: int) -> None:
    facts = RequestFacts(model="gpt-5", streaming=True, includes_usage=False)
    head = text("c1", "Hi") + chunk("c1", {}, "stop", usage=None)
    assert client_stream(head + usage("c1", 9, 4) + DONE, size=size, facts=facts) == head + DONE
    inner = call("c1", 0, ADD.id, "{}") + chunk("c1", {}, "tool_calls") + usage("c1", 9, 4) + DONE
    last = text("c2", "3") + chunk("c2", {}, "stop") + usage("c2", 20, 2) + DONE
    assert (
        client_stream(inner, last, size=size, facts=facts) == text("c1", "3") + chunk("c1", {}, "stop") + DONE
    )


# Rounds

INNER = (
    role("c1")
    + text("c1", "Let me ")
    + text("c1", "add.")
    + call("c1", 0, ADD.id, '{"a"')
    + more_arguments("c1", 0, ":1}")
    + chunk("c1", {}, "tool_calls")
    + usage("c1", 9, 4)
    + DONE
)
FINAL = (
    role("c2") + text("c2", "It is ") + text("c2", "3.") + chunk("c2", {}, "stop") + usage("c2", 20, 6) + DONE
)
SEEN_FIRST = role("c1") + text("c1", "Let me ") + text("c1", "add.")
SEEN_LAST = text("c1", "It is ") + text("c1", "3.") + chunk("c1", {}, "stop")


@SIZES
def test_the_client_gets_one_answer_of_two(size: int) -> None:
    out = client_stream(INNER, FINAL, size=size)
    assert out == SEEN_FIRST + SEEN_LAST + event(id="c1", choices=[], usage=token_counts(29, 10, 2)) + DONE
    completion = accumulate(out)
    assert completion["id"] == "c1"
    assert completion["usage"] == token_counts(29, 10, 2)
    (choice,) = completion["choices"]
    assert choice["message"] == {"role": "assistant", "content": "Let me add.It is 3."}
    assert choice["finish_reason"] == "stop"


@SIZES
def test_three_rounds_add_up(size: int) -> None:
    again = INNER.replace(b'"c1"', b'"c9"').replace(b"Let me ", b"Then ")
    out = client_stream(INNER, again, FINAL, size=size)
    assert out == (
        SEEN_FIRST
        + text("c1", "Then ")
        + text("c1", "add.")
        + SEEN_LAST
        + event(id="c1", choices=[], usage=token_counts(38, 14, 3))
        + DONE
    )


# Ways in which upstreams write a first answer, and what the client sees of it
END, STOP = chunk("c1", {}, "tool_calls"), chunk("c1", {}, "stop")
PICK_ADD = call("c1", 0, ADD.id)
ADDING = {"tool_calls": [tool_call(0, ADD.id)]}
HIDDEN = {
    "no text at all": (PICK_ADD + END + DONE, b""),
    "stop": (PICK_ADD + STOP + DONE, b""),
    "no reason": (PICK_ADD + DONE, b""),
    "no [DONE]": (PICK_ADD + END, b""),
    "no [DONE], usage": (PICK_ADD + usage("c1", 9, 4), b""),
    "no index": (call("c1", None, ADD.id) + call("c1", None, SEEK.id) + END, b""),
    "one index for all": (call("c1", 0, ADD.id) + call("c1", 0, SEEK.id) + END, b""),
    "several in one": (
        chunk("c1", {"tool_calls": [tool_call(0, ADD.id), tool_call(1, SEEK.id, "")]}, "stop") + DONE,
        b"",
    ),
    "id and name apart": (
        chunk("c1", {"tool_calls": [{"index": 0, "id": "a"}]})
        + chunk("c1", {"tool_calls": [{"index": 0, "function": {"name": ADD.id, "arguments": "{}"}}]})
        + (END + DONE),
        b"",
    ),
    "with the role": (
        chunk("c1", {"role": "assistant", "content": None, **ADDING}, "tool_calls") + DONE,
        chunk("c1", {"role": "assistant", "content": None}),
    ),
    "with text": (chunk("c1", {"content": "Now", **ADDING}) + END + DONE, text("c1", "Now")),
    "text with the end": (
        PICK_ADD + chunk("c1", {"content": "Now"}, "tool_calls", usage=token_counts(9, 4)) + DONE,
        chunk("c1", {"content": "Now"}, usage=None),
    ),
    "two choices": (
        chunk("c1", {"role": "assistant", "content": "Now"})
        + END
        + chunk("c1", {"role": "assistant", "content": None, **ADDING}, index=1)
        + chunk("c1", {}, "tool_calls", index=1)
        + DONE,
        chunk("c1", {"role": "assistant", "content": "Now"}),
    ),
    "usage in each": (
        chunk("c1", {"content": "Now"}, usage=token_counts(9, 1))
        + chunk("c1", ADDING, usage=token_counts(9, 3))
        + chunk("c1", {}, "tool_calls", usage=token_counts(9, 4))
        + DONE,
        chunk("c1", {"content": "Now"}, usage=token_counts(9, 1)),
    ),
    "comments": (b": a\n\n" + PICK_ADD + b": b\n\n" + END + b": c\n\n" + DONE, b": a\n\n: b\n\n: c\n\n"),
    "spaces": ((PICK_ADD + STOP).replace(b'":', b'" : ').replace(b",", b" ,") + DONE, b""),
    "nulls in further pieces": (
        PICK_ADD
        + chunk("c1", {"tool_calls": [{"index": 0, "id": None, "type": "", "function": {"name": None}}]})
        + (END + DONE),
        b"",
    ),
    "an id for each piece": (
        chunk("c1", {"tool_calls": [tool_call(0, ADD.id, "{")]})
        + chunk("c1", {"tool_calls": [{"index": 0, "id": "z", "function": {"arguments": "}"}}]})
        + (END + DONE),
        b"",
    ),
    "ids after names, one index for all": (
        chunk("c1", {"tool_calls": [{"index": 0, "function": {"name": ADD.id, "arguments": "{"}}]})
        + chunk(
            "c1", {"tool_calls": [{"index": 0, "id": "a", "function": {"name": ADD.id, "arguments": "}"}}]}
        )
        + call("c1", 0, SEEK.id)
        + (END + DONE),
        b"",
    ),
    "pieces without index": (
        chunk("c1", {"tool_calls": [tool_call(None, ADD.id, "{"), tool_call(None, SEEK.id, "{")]})
        + chunk("c1", {"tool_calls": [{"function": {"arguments": "}"}}] * 2})
        + (END + DONE),
        b"",
    ),
}


@SIZES
@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
@pytest.mark.parametrize(("inner", "seen"), HIDDEN.values(), ids=HIDDEN)
def test_nothing_of_an_offered_call_is_seen(inner: bytes, seen: bytes, ending: bytes, size: int) -> None:
    last = text("c2", "3") + chunk("c2", {}, "stop") + DONE
    out = client_stream(inner.replace(b"\n", ending), last, size=size).replace(ending, b"\n")
    assert out == seen + text("c1", "3") + chunk("c1", {}, "stop") + DONE


# Ways in which upstreams write a later answer, and what the client sees of it
LATER = {
    "usage with the end": (
        text("c2", "3") + chunk("c2", {}, "stop", usage=token_counts(20, 6)) + DONE,
        text("c1", "3") + chunk("c1", {}, "stop", usage=token_counts(29, 10, 2)) + DONE,
    ),
    "usage after the end": (
        text("c2", "3") + chunk("c2", {}, "stop") + chunk("c2", {}, usage=token_counts(20, 6)) + DONE,
        text("c1", "3") + chunk("c1", {}, "stop") + chunk("c1", {}, usage=token_counts(29, 10, 2)) + DONE,
    ),
    "usage in each": (
        chunk("c2", {"content": "3"}, usage=token_counts(20, 1))
        + chunk("c2", {"content": "!"}, usage=token_counts(20, 2))
        + chunk("c2", {}, "stop", usage=token_counts(20, 6))
        + DONE,
        chunk("c1", {"content": "3"}, usage=token_counts(29, 5, 2))
        + chunk("c1", {"content": "!"}, usage=token_counts(29, 6, 2))
        + chunk("c1", {}, "stop", usage=token_counts(29, 10, 2))
        + DONE,
    ),
    "a role in each": (
        chunk("c2", {"role": "assistant", "content": "3"})
        + chunk("c2", {"content": "!", "role": "assistant"}, "stop"),
        text("c1", "3") + chunk("c1", {"content": "!"}, "stop"),
    ),
    "spaces": (
        b'data: {"id": "c2", "choices": [{"index": 0, "delta": {"content": "3"}, "finish_reason": null}]}\n\n'
        + DONE,
        b'data: {"id": "c1", "choices": [{"index": 0, "delta": {"content": "3"}, "finish_reason": null}]}\n\n'
        + DONE,
    ),
    "an escaped id": (
        (text("c2", "3") + text("c2", "!")).replace(b"c2", b"\\u0063\\u0032") + DONE,
        text("c1", "3") + text("c1", "!") + DONE,
    ),
    "filter first": (
        event(id="", choices=[], prompt_filter_results=[{}]) + text("c2", "3") + DONE,
        event(id="c1", choices=[], prompt_filter_results=[{}]) + text("c1", "3") + DONE,
    ),
    "no id": (event(choices=[LAST]) + DONE, event(choices=[LAST]) + DONE),
    "its id in a text": (
        text("c2", '"id":"c2"') + text("c2", "c2") + DONE,
        text("c1", '"id":"c2"') + text("c1", "c2") + DONE,
    ),
    "an error": (
        text("c2", "3") + event(error={"message": "no", "type": "server_error"}),
        text("c1", "3") + event(error={"message": "no", "type": "server_error"}),
    ),
    "comments": (
        b": x\n\n" + text("c2", "3") + b": y\n\n" + DONE,
        b": x\n\n" + text("c1", "3") + b": y\n\n" + DONE,
    ),
    "own calls": (
        role("c2")
        + call("c2", 0, "own_a", '{"x')
        + more_arguments("c2", 0, '":1}')
        + chunk("c2", {}, "tool_calls")
        + DONE,
        call("c1", 0, "own_a", '{"x')
        + more_arguments("c1", 0, '":1}')
        + chunk("c1", {}, "tool_calls")
        + DONE,
    ),
}


@SIZES
@pytest.mark.parametrize(("last", "seen"), LATER.values(), ids=LATER)
def test_all_chunks_have_the_first_answers_id(last: bytes, seen: bytes, size: int) -> None:
    assert client_stream(INNER, last, size=size) == SEEN_FIRST + seen


@SIZES
def test_the_role_comes_once(size: int) -> None:
    quiet = call("c1", 0, ADD.id, "{}") + chunk("c1", {}, "tool_calls") + DONE
    speaking = (
        chunk("c2", {"role": "assistant", "content": "It"})
        + chunk("c2", {"role": "assistant", "content": " is"})
        + DONE
    )
    assert accumulate(client_stream(quiet, speaking, size=size))["choices"][0]["message"] == {
        "role": "assistant",
        "content": "It is",
    }
    joined = accumulate(client_stream(INNER, speaking, size=size))["choices"][0]["message"]
    assert joined == {"role": "assistant", "content": "Let me add.It is"}


# Turns that the client continues


GREP = {"id": "y", "type": "custom", "custom": {"name": "grep", "input": "x"}}
MIXED = {
    "offered first": (
        PICK_ADD
        + call("c1", 1, "own_a", '{"')
        + more_arguments("c1", 1, '"}')
        + more_arguments("c1", 0, " ")
        + call("c1", 2, SEEK.id)
        + call("c1", 3, "own_b"),
        call("c1", 0, "own_a", '{"') + more_arguments("c1", 0, '"}') + call("c1", 1, "own_b"),
    ),
    "own first": (
        call("c1", 0, "own_a") + call("c1", 1, ADD.id) + call("c1", 2, "own_b"),
        call("c1", 0, "own_a") + call("c1", 1, "own_b"),
    ),
    "one index for all": (
        call("c1", 0, "own_a") + call("c1", 0, ADD.id) + call("c1", 0, "own_b"),
        call("c1", 0, "own_a") + call("c1", 1, "own_b"),
    ),
    "counted from 1": (
        call("c1", 1, "own_a") + call("c1", 2, ADD.id) + call("c1", 3, "own_b"),
        call("c1", 1, "own_a") + call("c1", 2, "own_b"),
    ),
    "all in one": (
        chunk("c1", {"tool_calls": [tool_call(0, ADD.id), tool_call(1, "own_a")]}),
        chunk("c1", {"tool_calls": [tool_call(0, "own_a")]}),
    ),
    "a custom tool": (
        PICK_ADD + chunk("c1", {"tool_calls": [{"index": 1, **GREP}]}),
        chunk("c1", {"tool_calls": [{"index": 0, **GREP}]}),
    ),
    "a legacy call": (
        PICK_ADD + chunk("c1", {"function_call": {"name": "own_a", "arguments": "{}"}}),
        chunk("c1", {"function_call": {"name": "own_a", "arguments": "{}"}}),
    ),
}


@SIZES
@pytest.mark.parametrize(("calls", "seen"), MIXED.values(), ids=MIXED)
def test_a_mixed_turn_is_finished_for_the_client(calls: bytes, seen: bytes, size: int) -> None:
    end = chunk("c1", {}, "tool_calls") + usage("c1", 9, 4) + DONE
    assert client_stream(role("c1") + calls + end, size=size) == role("c1") + seen + end


@SIZES
@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_a_call_that_was_cut_is_not_run(reason: str, size: int) -> None:
    end = chunk("c1", {}, reason) + usage("c1", 9, 4) + DONE
    assert (
        client_stream(text("c1", "So") + call("c1", 0, ADD.id, '{"a') + end, size=size)
        == text("c1", "So") + end
    )


NAMELESS = chunk("c1", {"tool_calls": [{"index": 1, "id": "x", "function": {}}]})
BROKEN = {
    "no end": b"",
    "an error": event(error={"message": "no", "type": "server_error"}),
    "an error before the end": event(id="c1", error={"message": "no"}, choices=[{"delta": {"content": "?"}}])
    + DONE,
    "an error with the end": chunk("c1", {}, "error") + DONE,
    "a call without a name": NAMELESS + END + DONE,
}


@SIZES
@pytest.mark.parametrize("end", BROKEN.values(), ids=BROKEN)
def test_a_call_of_an_answer_that_broke_off_is_not_run(end: bytes, size: int) -> None:
    assert client_stream(text("c1", "So") + PICK_ADD + end, size=size) == text("c1", "So") + end


def test_an_error_does_not_wait() -> None:
    fold = CHAT.splice(offer_tools(), FACTS)
    end, error = chunk("c1", {}, "stop"), event(error={"message": "no"})
    assert fold.feed(text("c1", "Hi") + end) == text("c1", "Hi")
    assert fold.feed(error) == end + error


def test_an_end_among_several_choices_is_held_back() -> None:
    """An event of two choices passes; the end next to it in the same data does not."""
    fold = CHAT.splice(offer_tools(), FACTS)
    two = event(
        id="c1", choices=[{"index": n, "delta": {"content": "x"}, "finish_reason": None} for n in (0, 1)]
    )
    assert fold.feed(PICK_ADD) == b""
    assert fold.feed(two + STOP) == two
    assert fold.feed(DONE) == b""
    assert fold.awaits_tools


# The next request


def follow_up(answer: bytes, result: ToolResult = THREE, body: bytes = ASK) -> bytes:
    fold = CHAT.splice(offer_tools(body), FACTS)
    feed(fold, answer, 0)
    return follow_up_body(fold, result)


def test_the_next_request_is_the_first_one_and_the_turn() -> None:
    first, next = offer_tools().body, follow_up(INNER)
    end = first.index(b' ],"stream"')
    turn = (
        b',{"role":"assistant","content":"Let me add.","tool_calls":[{"id":"call__add","type":"function",'
        b'"function":{"name":"bmcp_sum_add","arguments":"{\\"a\\":1}"}}]},'
        b'{"role":"tool","tool_call_id":"call__add","content":"3"}'
    )
    assert next == first[:end] + b" " + turn + first[end + 1 :]


OWN = b',"tools":[{"type":"function","function":{"name":"own_a"}}]'


@pytest.mark.parametrize(
    ("choice", "own", "later"),
    [
        (b"", b"", None),
        (b',"tool_choice":"auto"', b"", "auto"),
        (b',"tool_choice":"required"', b"", "auto"),
        (b',"tool_choice":"required"', b',"tools":[]', "auto"),
        (b',"tool_choice":"required"', OWN, "required"),
    ],
)
def test_a_required_tool_choice_becomes_auto_after_the_offered_call_if_there_is_no_other_tool(
    choice: bytes, own: bytes, later: str | None
) -> None:
    body = ASK[:-1] + choice + own + b"}"
    assert json.loads(offer_tools(body).body).get("tool_choice") == json.loads(body).get("tool_choice")
    assert json.loads(follow_up(INNER, body=body)).get("tool_choice") == later


def turn_of(next: bytes) -> tuple[dict[str, object], list[dict[str, object]]]:
    """The assistant's message in the next request, and the messages of results."""
    _, assistant, *results = json.loads(next)["messages"]
    return assistant, results


def test_rounds_follow_each_other_in_the_next_request() -> None:
    fold = CHAT.splice(offer_tools(), FACTS)
    feed(fold, INNER, 0)
    follow_up_body(fold)
    feed(fold, INNER.replace(b"c1", b"c2"), 0)
    messages = json.loads(follow_up_body(fold, ToolResult(is_error=True, error="it broke")))["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant", "tool"]
    assert [message["content"] for message in messages[2::2]] == ["3", "Error: it broke"]


def test_several_calls_have_their_results_in_order() -> None:
    calls = call("c1", 0, SEEK.id, "") + call("c1", 1, ADD.id, '{"a": 1.0}')
    assistant, results = turn_of(follow_up(calls + chunk("c1", {}, "tool_calls") + DONE))
    assert assistant["content"] is None
    assert [call["function"] for call in assistant["tool_calls"]] == [
        {"name": SEEK.id, "arguments": "{}"},
        {"name": ADD.id, "arguments": '{"a": 1.0}'},
    ]
    assert [message["tool_call_id"] for message in results] == ["call_seek", "call__add"]


def test_thoughts_and_signatures_go_back_as_they_came() -> None:
    thought = b'data: {"id":"c1","choices":[{"index":0,"delta":{"reasoning_text":"h\\u00e9 \\ud83d"}}]}\n\n'
    rest = b'data: {"id":"c1","choices":[{"index":0,"delta":{"reasoning_text":"\\ude00","reasoning_opaque":"s/+="}}]}\n\n'
    signature = {"google": {"thought_signature": "c2ln"}}
    answer = (
        thought
        + rest
        + call("c1", 0, ADD.id, "{}", extra_content=signature)
        + chunk("c1", {"refusal": None}, "stop")
        + DONE
    )
    next = follow_up(answer)
    assert b'"reasoning_text":"h\\u00e9 \\ud83d\\ude00","reasoning_opaque":"s/+="' in next
    assistant, _ = turn_of(next)
    assert set(assistant) == {"role", "content", "reasoning_text", "reasoning_opaque", "tool_calls"}
    assert assistant["tool_calls"][0]["extra_content"] == signature


def test_an_answer_split_over_choices_goes_back_as_one() -> None:
    assistant, _ = turn_of(follow_up(HIDDEN["two choices"][0]))
    assert assistant["content"] == "Now"
    assert [call["id"] for call in assistant["tool_calls"]] == ["call__add"]


@pytest.mark.parametrize("answer", [answer for answer, _ in HIDDEN.values()], ids=HIDDEN)
def test_each_call_has_a_result(answer: bytes) -> None:
    assistant, results = turn_of(follow_up(answer))
    assert (
        [call["id"] for call in assistant["tool_calls"]]
        == [message["tool_call_id"] for message in results]
        != []
    )
    assert all(json.loads(call["function"]["arguments"]) == {} for call in assistant["tool_calls"])


# Blocking answers


def client_answer(*answers: bytes, size: int = 0) -> bytes:
    fold = CHAT.blocking_splice(offer_tools(), FACTS)
    out = b""
    for number, answer in enumerate(answers):
        if number:
            follow_up_body(fold)
            assert out == b""
        out += feed(fold, answer, size)
    assert not fold.awaits_tools
    return out


PICK = ("a", ADD.id, '{"a":1}')
OWN_PICK = ("b", "own_a", "{}")
ANSWERS = {
    "text": whole(completion("c1", message("Hi"))),
    "own call": whole(completion("c1", message(None, OWN_PICK))),
    "no object": b'["x"]',
    "no JSON": b"<html>",
    "no choices": b'{"id":"c1","choices":[null,7,{"message":[]}]}',
    "nothing": b"",
}


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_a_blocking_answer_with_nothing_to_hide_passes_byte_for_byte(answer: bytes, size: int) -> None:
    assert client_answer(answer, size=size) == answer


def test_a_blocking_answer_holds_the_texts_of_all_rounds() -> None:
    inner = completion("c1", message("Let me add.", PICK, reasoning_content="Hm. "))
    last = completion("c2", message("It is 3.", reasoning_content="Ah."), input_tokens=20, output_tokens=6)
    joined = message("Let me add.It is 3.", reasoning_content="Hm. Ah.")
    all = {**completion("c1", joined), "usage": token_counts(29, 10, 2)}
    assert json.loads(client_answer(whole(inner), whole(last))) == all


ROUNDS = {
    "text": [message("Let me add. ", PICK), message("It is 3.")],
    "silence": [message(None, PICK), message("3", reasoning_content="Ah.")],
    "thoughts": [message(None, PICK, reasoning_text="Hm."), message("3", reasoning_text="Ah.")],
    "own call": [message("Let me add.", PICK), message(None, OWN_PICK, ("c", "own_b", '{"x":[1]}'))],
    "mixed": [message("Both.", PICK, OWN_PICK)],
    "mixed later": [message("Add.", PICK), message("Both.", OWN_PICK, PICK, ("c", "own_b", "{}"))],
    "three": [message("1", PICK), message("2", PICK), message("3")],
}


@pytest.mark.parametrize("rounds", ROUNDS.values(), ids=ROUNDS)
def test_a_blocking_answer_holds_what_the_stream_builds(rounds: list[dict[str, object]]) -> None:
    answers = [completion(f"c{number}", message) for number, message in enumerate(rounds)]
    blocking = json.loads(client_answer(*map(whole, answers)))
    streamed = accumulate(client_stream(*map(stream, answers)))
    for built_call in streamed["choices"][0]["message"].get("tool_calls", []):
        del built_call["index"]
    streamed["choices"][0]["message"]["content"] = streamed["choices"][0]["message"]["content"] or None
    assert blocking == streamed
    assert "bmcp_" not in json.dumps(blocking)


@pytest.mark.parametrize(("before", "content"), [(None, None), ("", None), ("Now. ", "Now. ")])
def test_a_content_without_text_is_null(before: str | None, content: str | None) -> None:
    inner, last = completion("c1", message(before, PICK)), completion("c2", message(None, OWN_PICK))
    assert json.loads(client_answer(whole(inner), whole(last)))["choices"][0]["message"] == message(
        content, OWN_PICK
    )


def test_a_blocking_answer_split_over_choices_is_one() -> None:
    fold = CHAT.blocking_splice(offer_tools(), FACTS)
    assert feed(fold, whole(completion("c1", message("Let me add."), message(None, PICK))), 0) == b""
    assistant, results = turn_of(follow_up_body(fold))
    assert assistant == message("Let me add.", PICK)
    assert [message["tool_call_id"] for message in results] == ["a"]
    last = completion("c2", message("3"), message("!"))
    last["choices"][1]["index"] = 0
    out = json.loads(feed(fold, whole(last), 0))
    assert [choice["message"] for choice in out["choices"]] == [message("Let me add.3"), message("!")]


@pytest.mark.parametrize("last", [b'["x"]', b"<html>", b""])
def test_a_later_answer_that_is_no_completion_passes(last: bytes) -> None:
    assert client_answer(whole(completion("c1", message("So", PICK))), last) == last


@pytest.mark.parametrize("finish", ["length", "content_filter"])
def test_a_call_that_was_cut_is_not_run_in_a_blocking_answer_either(finish: str) -> None:
    answer = json.loads(client_answer(whole(completion("c1", message("So", PICK), finish=finish))))
    assert answer == completion("c1", message("So"), finish=finish)


@pytest.mark.skipif(not RECORDED.exists(), reason="there are no recorded exchanges")
@pytest.mark.parametrize("name", ["single_injected_tool", "streaming_injected_tool_no_preamble"])
@SIZES
def test_recorded_rounds_become_one_answer(name: str, size: int) -> None:
    inner, last = recorded_answer(name, "streaming"), recorded_answer(name, "streaming/tool-call")
    tool = Tool("bmcp_coder_coder_list_workspaces", "coder", "http://x", "list", "", {})
    fold = CHAT.splice(offer_tools(tools=(tool,)), FACTS)
    out = feed(fold, inner, size)
    assert tool.id in follow_up_body(fold).decode()
    out += feed(fold, last, size)
    assert b"bmcp_" not in out
    assert b'"tool_calls"' not in out
    assert out.count(b"[DONE]") == 1
    assert out.count(b'"finish_reason":"') == 1
    first, second, all = accumulate(inner), accumulate(last), accumulate(out)
    assert all["id"] == first["id"]
    before = first["choices"][0]["message"].get("content", "")
    assert all["choices"][0]["message"]["content"] == before + second["choices"][0]["message"]["content"]
    assert all["choices"][0]["finish_reason"] == "stop"
    for key in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert all["usage"][key] == first["usage"][key] + second["usage"][key]


def recorded_answer(name: str, section: str) -> bytes:
    data = (RECORDED / "openai" / "chatcompletions" / f"{name}.txtar").read_bytes()
    return data.split(f"-- {section} --\n".encode())[1].split(b"\n-- ")[0].rstrip() + b"\n\n"
