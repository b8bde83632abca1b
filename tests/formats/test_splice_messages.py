"""The splice of Anthropic's messages: several answers become one, byte for byte."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from aibridge_flask.formats import MESSAGES
from aibridge_flask.model import Offer, Tool, ToolResult
from aibridge_flask.protocols import Splice
from tests.support import claude
from tests.support.claude import message, text, thought, use
from tests.support.exchanges import ALL, Exchange
from tests.support.sse import read_events

ADD = Tool("bmcp_docs_add", "docs", "http://docs/mcp", "add", "Adds.", {"type": "object"})
FIND = Tool(
    "bmcp_docs_find", "docs", "http://docs/mcp", "find", "Finds.", {"$defs": {"x": {}}, "type": "object"}
)
ASK = {"model": "claude-opus-4-5", "messages": [{"role": "user", "content": "hi"}]}
SIZES = [1, 2, 7, 64, 1 << 20]
OFFERED_USE = use("toolu_1", ADD.id, a=1, b=2)
CLIENT_USE = use("toolu_2", "Bash", command="ls")
THREE = ToolResult(({"type": "text", "text": "3"},))


def offer_tools(ask: dict[str, Any] = ASK, *tools: Tool) -> Offer:
    body = json.dumps(ask).encode()
    return MESSAGES.offer(body, MESSAGES.read(body), tools or (ADD, FIND))


def feed(fold: Splice, data: bytes, size: int = 1 << 20) -> bytes:
    pieces = [fold.feed(data[start : start + size]) for start in range(0, len(data), size)]
    return b"".join(pieces) + fold.end()


def run_rounds(
    *answers: dict[str, Any], streaming: bool = True, size: int = 1 << 20, result: ToolResult = THREE
) -> tuple[bytes, list[dict[str, Any]]]:
    """Returns what the client gets of these answers, and the requests for the later ones."""
    offer = offer_tools()
    fold = (MESSAGES.splice if streaming else MESSAGES.blocking_splice)(offer, MESSAGES.read(offer.body))
    out, bodies = b"", []
    for number, answer in enumerate(answers):
        out += feed(fold, claude.stream(answer) if streaming else claude.whole(answer), size)
        assert fold.awaits_tools is (number < len(answers) - 1)
        if fold.awaits_tools:
            calls = [call for call in fold.turn().tool_calls if call.name == ADD.id]
            bodies.append(json.loads(fold.follow_up([(call, result) for call in calls])))
    assert fold.complete
    return out, bodies


def accumulate(stream: bytes) -> dict[str, Any]:
    """Builds the message as a client does; checks the order of events. `joined` is a block's text."""
    first, *rest = read_events(stream)
    assert first["type"] == "message_start"
    built, open_index = first["message"], -1
    for event in rest:
        kind, content = event["type"], built["content"]
        if kind == "content_block_start":
            assert open_index == -1
            assert event["index"] == len(content)
            open_index = event["index"]
            content.append({**event["content_block"], "joined": ""})
        elif kind == "content_block_delta":
            assert event["index"] == open_index
            delta = event["delta"]
            content[-1]["joined"] += next(delta[key] for key in delta if key != "type")
        elif kind == "content_block_stop":
            assert event["index"] == open_index
            open_index = -1
        elif kind == "message_delta":
            built.update(event["delta"])
            built["usage"].update(event["usage"])
    assert rest[-1]["type"] == "message_stop"
    assert [event["type"] for event in rest].count("message_stop") == 1
    return built


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "exchange",
    [exchange for exchange in ALL if "messages" in exchange.route],
    ids=lambda exchange: exchange.name,
)
def test_without_a_call_of_an_offered_tool_no_byte_changes(exchange: Exchange, size: int) -> None:
    offer = offer_tools()
    facts = MESSAGES.read(offer.body)
    fold = (MESSAGES.splice if exchange.streaming else MESSAGES.blocking_splice)(offer, facts)
    assert feed(fold, exchange.answer, size) == exchange.answer
    assert not fold.awaits_tools


@pytest.mark.parametrize("size", SIZES)
def test_rounds_become_one_message(size: int) -> None:
    out, _ = run_rounds(
        message("msg_1", thought("hm 🤔", "sig=="), text("Let me add."), OFFERED_USE, stop="tool_use", cache_read_input_tokens=4),
        message("msg_2", text("Once more."), OFFERED_USE, stop="tool_use"),
        message("msg_3", thought("aha", "sig2"), text("It is 3."), cache_read_input_tokens=6, cache_creation={"ephemeral_5m_input_tokens": 2}),
        size=size,
    )  # fmt: skip
    built = accumulate(out)
    assert built["id"] == "msg_1"
    assert [block["joined"] for block in built["content"]] == [
        "hm 🤔sig==",
        "Let me add.",
        "Once more.",
        "ahasig2",
        "It is 3.",
    ]
    assert built["stop_reason"] == "end_turn"
    assert built["usage"] == {
        "input_tokens": 30,
        "output_tokens": 15,
        "cache_read_input_tokens": 10,
        "cache_creation": {"ephemeral_5m_input_tokens": 2},
    }
    assert b"bmcp_" not in out


def test_a_blocking_answer_holds_what_the_stream_builds() -> None:
    rounds = (
        message("msg_1", text("Let me add."), OFFERED_USE, stop="tool_use", service_tier="standard"),
        message("msg_2", text("It is 3."), service_tier="standard"),
    )
    built = accumulate(run_rounds(*rounds)[0])
    blocking = json.loads(run_rounds(*rounds, streaming=False)[0])
    for block in built["content"]:
        block["text"] = block.pop("joined")
    assert blocking == built


@pytest.mark.parametrize("streaming", [True, False])
def test_the_next_request_holds_the_turn_and_the_results(streaming: bool) -> None:
    content = [thought('a "quoted" é 🤔', "sig=="), text("Let me add."), OFFERED_USE]
    _, (body,) = run_rounds(
        message("msg_1", text(""), *content, stop="tool_use"),
        message("msg_2", text("3")),
        streaming=streaming,
    )
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [text("3")]}
    assert body["messages"] == [
        *ASK["messages"],
        {"role": "assistant", "content": content},
        {"role": "user", "content": [result]},
    ]
    assert {**body, "messages": []} == {**json.loads(offer_tools().body), "messages": []}


def test_a_thought_goes_back_byte_for_byte() -> None:
    """Escapes stay as they were, even one that was split over two events."""
    start = b'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}\n\n'
    deltas = [rb'"thinking":"\u00e9\ud83e"', rb'"thinking":"\udd14 \/"', rb'"signature":"ab\/c="']
    kinds = [b"thinking_delta", b"thinking_delta", b"signature_delta"]
    thought_deltas = b"".join(
        b'data: {"type":"content_block_delta","index":0,"delta":{"type":"%s",%s}}\n\n' % pair
        for pair in zip(kinds, deltas, strict=True)
    )
    plain = claude.stream(message("msg_1", OFFERED_USE, stop="tool_use"))
    cut = plain.index(b"event: content_block_start")
    stop = b'data: {"type":"content_block_stop","index":0}\n\n'
    offer = offer_tools()
    fold = MESSAGES.splice(offer, MESSAGES.read(offer.body))
    feed(fold, plain[:cut] + start + thought_deltas + stop + plain[cut:].replace(b'"index":0', b'"index":1'))
    (call,) = fold.turn().tool_calls
    body = fold.follow_up([(call, THREE)])
    assert rb'{"type":"thinking","thinking":"\u00e9\ud83e\udd14 \/","signature":"ab\/c="}' in body


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize(
    ("content", "stop", "seen"),
    [
        ([OFFERED_USE, CLIENT_USE], "tool_use", [CLIENT_USE]),
        ([text("x"), CLIENT_USE, OFFERED_USE], "tool_use", [text("x"), CLIENT_USE]),
        ([text("x"), OFFERED_USE], "max_tokens", [text("x")]),
        ([OFFERED_USE], "refusal", []),
    ],
)
def test_a_turn_that_is_not_for_offered_tools_alone_is_finished(
    streaming: bool, content: list[claude.Block], stop: str, seen: list[claude.Block]
) -> None:
    out, bodies = run_rounds(message("msg_1", *content, stop=stop), streaming=streaming)
    assert bodies == []
    if not streaming:
        assert json.loads(out) == message("msg_1", *seen, stop=stop)
        return
    built = accumulate(out)
    assert [block.get("name") for block in built["content"]] == [block.get("name") for block in seen]
    assert built["stop_reason"] == stop


def test_unusual_layouts_are_parsed() -> None:
    """CRLF, comments, blanks, the index last, an error at the end."""
    plain = claude.stream(message("msg_1", OFFERED_USE, CLIENT_USE, stop="tool_use"))
    rewritten = re.sub(
        rb'\{"type":"(\w+)","index":(\d),(.*)\}', rb'{ "type" : "\1", \3 , "index" : \2 }', plain
    )
    odd = b": hello\n\n" + rewritten.replace(b"\n", b"\r\n")
    offer = offer_tools()
    fold = MESSAGES.splice(offer, MESSAGES.read(offer.body))
    built = accumulate(feed(fold, odd, 5).replace(b"\r\n", b"\n"))
    assert [block["name"] for block in built["content"]] == ["Bash"]


@pytest.mark.parametrize(
    "noise",
    [
        b': "content_block_start"\n\n',
        b'event: content_block_start\ndata: {"type":"content_block_start","index":0,\n\n',
        b'event: content_block_start\ndata: {"type":"content_block_start","index":[],"content_block":7}\n\n',
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":null,"delta":"x"}\n\n',
    ],
)
def test_malformed_events_do_not_spoil_the_next_request(noise: bytes) -> None:
    plain = claude.stream(message("msg_1", use("toolu_1", ADD.id, a=1), stop="tool_use"))
    cut = plain.index(b"event: content_block_start")
    offer = offer_tools()
    fold = MESSAGES.splice(offer, MESSAGES.read(offer.body))
    fold.feed(plain[:cut] + noise + plain[cut:])
    fold.end()
    assert fold.awaits_tools
    (call,) = fold.turn().tool_calls[-1:]
    body = json.loads(fold.follow_up([(call, ToolResult())]))
    assert body["messages"][1]["content"] == [use("toolu_1", ADD.id, a=1)]


def test_an_error_in_the_stream_ends_it() -> None:
    plain = claude.stream(message("msg_1", OFFERED_USE, stop="tool_use"))
    error = (
        b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'
    )
    offer = offer_tools()
    fold = MESSAGES.splice(offer, MESSAGES.read(offer.body))
    assert feed(fold, plain + error).endswith(error)
    assert not fold.awaits_tools
    assert fold.turn().failure.type == "overloaded"


PICTURE = {"type": "image", "data": "aGk=", "mimeType": "image/png"}


@pytest.mark.parametrize(
    ("result", "content", "error"),
    [
        (ToolResult(({"type": "text", "text": "3"},)), [text("3")], False),
        (ToolResult((PICTURE,)), [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}], False),
        (ToolResult(({**PICTURE, "mimeType": "image/tiff"},)), [text("[content of type image/tiff left out]")], False),
        (ToolResult(({"type": "audio", "data": "aGk=", "mimeType": "audio/wav"},)), [text("[content of type audio/wav left out]")], False),
        (ToolResult(({"type": "resource", "resource": {"uri": "a:b", "text": "inside"}},)), [text("inside")], False),
        (ToolResult(({"type": "resource", "resource": {"uri": "a:b", "mimeType": "image/png", "blob": "aGk="}},)), [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}], False),
        (ToolResult(({"type": "resource_link", "uri": "file:///x", "name": "x"},)), [text("x: file:///x")], False),
        (ToolResult(({"type": "text", "text": "3"},), {"n": 3}), [text("3")], False),
        (ToolResult((), {"n": 3}), [text('{"n":3}')], False),
        (ToolResult(), [], False),
        (ToolResult(({"type": "text", "text": "no"},), is_error=True), [text("no")], True),
        (ToolResult(is_error=True), [text("Error: the tool failed and gave no reason")], True),
        (ToolResult(error="the MCP server did not answer in time", is_error=True), [text("Error: the MCP server did not answer in time")], True),
        (ToolResult(({"type": "text", "text": "x" * 2_000_000},)), [text("x" * (1 << 20) + "\n[cut off: too long]")], False),
        (ToolResult(({"type": "new", "n": 1},)), [text('{"type":"new","n":1}')], False),
    ],
)  # fmt: skip
def test_results_have_the_form_of_the_api(result: ToolResult, content: list[object], error: bool) -> None:
    _, (body,) = run_rounds(
        message("m", OFFERED_USE, stop="tool_use"), message("n", text("x")), result=result
    )
    (block,) = body["messages"][-1]["content"]
    assert block == {
        "type": "tool_result",
        "tool_use_id": "toolu_1",
        "content": content,
        **({"is_error": True} if error else {}),
    }


OFFERED_TOOL = {
    "name": ADD.id,
    "description": "Adds.",
    "input_schema": {"type": "object"},
}
CLIENT_TOOL = {"name": "Bash", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}


@pytest.mark.parametrize(
    ("ask", "tools", "choice"),
    [
        ({}, [OFFERED_TOOL], {"type": "auto"}),
        ({"tools": [], "tool_choice": None}, [OFFERED_TOOL], {"type": "auto"}),
        (
            {"tools": [CLIENT_TOOL], "tool_choice": {"type": "any"}},
            [OFFERED_TOOL, CLIENT_TOOL],
            {"type": "any"},
        ),
        (
            {"tools": [CLIENT_TOOL], "tool_choice": {"type": "tool", "name": "Bash"}},
            [OFFERED_TOOL, CLIENT_TOOL],
            {"type": "tool", "name": "Bash"},
        ),
    ],
)
def test_offered_tools_come_before_the_clients(
    ask: dict[str, Any], tools: list[object], choice: dict[str, Any]
) -> None:
    body = json.loads(offer_tools({**ASK, **ask}, ADD).body)
    assert body["tools"] == tools
    assert body["tool_choice"] == {**choice, "disable_parallel_tool_use": True}


def test_the_bytes_of_other_values_stay() -> None:
    own = b'[ {"name":"Bash", "input_schema":{"type":"object"}, "cache_control":{"type":"ephemeral"}} ]'
    head = b'{"model":"claude-opus-4-5","temperature":1e0,"system":"\\u00e9\\ud83d",'
    rest = b'"messages":[{"role" : "user","content":"a\\/b"}],"thinking":{"budget_tokens":1.0}}'
    body = head + b'"tools":' + own + b"," + rest
    offer = MESSAGES.offer(body, MESSAGES.read(body), (ADD,))
    assert offer.body.startswith(head + b'"tools":[{"name":"bmcp_docs_add"')
    assert own[1:] + b"," + rest[:-1] in offer.body


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","messages":[],"tool_choice":{"type":"none"}}',
        b'{"model":"claude-haiku-4-5","stream":true,"messages":[]}',
        b'{"model":"m","messages":[],"messages":[]}',
        b'{"model":"m","messages":[],"tools":"x"}',
        b'{"model":"m","messages":[],"tool_choice":"any"}',
        b'{"model":"m","messages":"x"}',
        b'{"model":"m"}',
        b'{"messages":[],"tools":[{"name":"bmcp_docs_add"}]}',
    ],
)
def test_the_body_stays_if_tools_cannot_be_offered(body: bytes) -> None:
    assert MESSAGES.offer(body, MESSAGES.read(body), (ADD,)) == Offer(body)


def test_a_tool_with_the_name_of_a_client_tool_is_left_out() -> None:
    offer = offer_tools({**ASK, "tools": [{"name": ADD.id}]})
    assert offer.tools == (FIND,)
    fold = MESSAGES.splice(offer, MESSAGES.read(offer.body))
    data = claude.stream(message("msg_1", OFFERED_USE, stop="tool_use"))
    assert feed(fold, data) == data
    assert not fold.awaits_tools


@pytest.mark.parametrize(("own", "later"), [([], "auto"), ([{"name": "Bash"}], "any")])
def test_a_required_tool_choice_becomes_auto_after_the_offered_call_if_there_is_no_other_tool(
    own: list[object], later: str
) -> None:
    offer = offer_tools({**ASK, "tools": own, "tool_choice": {"type": "any"}})
    assert json.loads(offer.body)["tool_choice"]["type"] == "any"
    fold = MESSAGES.splice(offer, MESSAGES.read(offer.body))
    feed(fold, claude.stream(message("msg_1", OFFERED_USE, stop="tool_use")))
    (call,) = fold.turn().tool_calls
    body = json.loads(fold.follow_up([(call, THREE)]))
    assert body["tool_choice"] == {"type": later, "disable_parallel_tool_use": True}


def test_schemas_are_sent_whole() -> None:
    schema = {
        "properties": {"a": {"type": "number", "minimum": 1}},
        "type": "object",
    }
    tool = Tool("bmcp_docs_sum", "docs", "", "sum", "", schema)
    assert json.loads(offer_tools(ASK, tool).body)["tools"][0]["input_schema"] == schema
