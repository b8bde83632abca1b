"""Central tools on the routes of OpenAI's chat completions: the bridge runs what the model picks, the
client sees one answer."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.support import chat
from tests.support.chat import completion, message, summed
from tests.support.mcp import ScriptedMcp, result
from tests.support.mcp import message as asked_of
from tests.support.scrape import scrape
from tests.support.server import Server, until
from tests.support.upstream import CLOSE, GONE, Upstream, answer, chunk, stream_head, streamed

OPENAI, COPILOT = "/openai/v1/chat/completions", "/copilot/chat/completions"
ASK = {"model": "gpt-test-1", "messages": [{"role": "user", "content": "1 + 2?"}]}
ADD = "bmcp_docs_add"
MINE, THEIRS = ("call_1", ADD, '{"a": 1,"b":2}'), ("call_2", "grep", '{"for":"x"}')
PICKS = completion("c1", message("Let me add. ", MINE, reasoning_content="hm"))
ENDS = completion("c2", message("It is 3."), taken=20, given=6)
SAID = "Let me add. It is 3."
PING = b": keep-alive\n\n"
BOTH = pytest.mark.parametrize("streaming", [True, False])
USAGE = {"stream_options": {"include_usage": True}}


def ask(streaming: bool, **changes: object) -> bytes:
    return json.dumps({**ASK, **({"stream": True, **USAGE} if streaming else {}), **changes}).encode()


def say(upstream: Upstream, streaming: bool, *answers: dict[str, Any]) -> None:
    for one in answers:
        upstream.say(*chat.step(one, streaming, 11))


def asked(server: Server, body: bytes, path: str = OPENAI, **headers: str) -> tuple[int, bytes, bool, str]:
    return server.asked(path, body, **headers)


def chunks(stream: bytes) -> list[dict[str, Any]]:
    return [json.loads(data) for data in re.findall(rb"^data: (\{.*)$", stream, re.MULTILINE)]


def said(stream: bytes) -> str:
    """The text that a client puts together."""
    found = [choice["delta"].get("content") for one in chunks(stream) for choice in one["choices"]]
    return "".join(text or "" for text in found)


@pytest.fixture
def client(toolbridge: Server) -> Iterator[openai.OpenAI]:
    base = f"{toolbridge.url}/openai/v1"
    with openai.OpenAI(base_url=base, api_key="aib_0123456789", max_retries=0) as made:
        yield made


def accumulated(client: openai.OpenAI, streaming: bool, **options: object) -> dict[str, Any]:
    if not streaming:
        return client.chat.completions.create(**ASK, **options).to_dict()
    with client.chat.completions.stream(**ASK, **USAGE, **options) as stream:
        for _ in stream:
            pass
        return stream.get_final_completion().to_dict()


@BOTH
def test_a_tool_is_run_and_the_client_sees_one_answer(
    client: openai.OpenAI, upstream: Upstream, docs: ScriptedMcp, streaming: bool
) -> None:
    say(upstream, streaming, PICKS, ENDS)
    found = accumulated(client, streaming)
    assert found["id"] == "c1"
    assert found["usage"] == summed(29, 10, 2)
    (choice,) = found["choices"]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"] == SAID
    assert choice["message"]["reasoning_content"] == "hm"
    assert not choice["message"].get("tool_calls")

    first, second = upstream.heard
    sent, again = json.loads(first.body), json.loads(second.body)
    assert [tool["function"]["name"] for tool in sent["tools"]] == [ADD]
    assert sent["parallel_tool_calls"] is False
    spoken = [PICKS["choices"][0]["message"], {"role": "tool", "tool_call_id": "call_1", "content": "3"}]
    assert again == {**sent, "messages": [*sent["messages"], *spoken]}
    (call,) = docs.asked("tools/call")
    assert asked_of(call)["params"] == {"name": "add", "arguments": {"a": 1, "b": 2}}


def test_it_works_without_blocking(toolbridge: Server, upstream: Upstream) -> None:
    async def dialogue() -> str:
        base = f"{toolbridge.url}/openai/v1"
        async with openai.AsyncOpenAI(base_url=base, api_key="aib_0123456789", max_retries=0) as client:
            stream = await client.chat.completions.create(**ASK, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    say(upstream, True, PICKS, ENDS)
    assert asyncio.run(dialogue()) == SAID


@BOTH
def test_each_call_and_each_turn_is_recorded(
    toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, streaming: bool
) -> None:
    again = completion("c2", message(None, ("call_9", ADD, '{"a":3}')))
    last = completion("c3", message("6", THEIRS, reasoning_content="aha"))
    say(upstream, streaming, PICKS, again, last)
    docs.say("tools/call", answer(500, b"no"))
    status, _, whole, id = asked(toolbridge, ask(streaming))
    assert (status, whole) == (200, True)
    record = toolbridge.record(id)
    counts = ("provider_response_id", "input_tokens", "cache_read_input_tokens", "output_tokens")
    assert [tuple(one[key] for key in counts) for one in record["token_usages"]] == [
        ("c1", 8, 1, 4),
        ("c2", 8, 1, 4),
        ("c3", 8, 1, 4),
    ]
    told = (
        "provider_response_id",
        "tool_call_id",
        "tool",
        "input",
        "injected",
        "server_url",
        "invocation_error",
    )
    failed = "the MCP server answered with status 500"
    assert [tuple(one[key] for key in told) for one in record["tool_usages"]] == [
        ("c1", "call_1", "add", '{"a": 1,"b":2}', True, docs.url, failed),
        ("c2", "call_9", "add", '{"a":3}', True, docs.url, ""),
        ("c3", "call_2", "grep", '{"for":"x"}', False, "", ""),
    ]
    assert [one["content"] for one in record["model_thoughts"]] == ["hm", "aha"]
    assert [one["provider_response_id"] for one in record["user_prompts"]] == ["c1"]
    assert (record["error_type"], record["wire_exact"], record["status_code"]) == ("", False, 200)
    assert json.loads(upstream.heard[1].body)["messages"][-1]["content"] == f"Error: {failed}"


@BOTH
def test_a_turn_with_calls_of_the_clients_own_is_finished_for_it(
    client: openai.OpenAI, toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, streaming: bool
) -> None:
    say(upstream, streaming, PICKS, completion("c2", message(None, MINE, THEIRS)))
    (choice,) = accumulated(client, streaming)["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert [(one["id"], one["function"]["name"]) for one in choice["message"]["tool_calls"]] == [THEIRS[:2]]
    assert len(docs.asked("tools/call")) == 1
    newest = toolbridge.get("/interceptions?limit=1")["results"][0]["id"]
    uses = toolbridge.record(newest)["tool_usages"]
    assert [(one["tool"], one["invocation_error"]) for one in uses] == [
        ("add", ""),
        ("add", "not run: mixed with client tool calls"),
        ("grep", ""),
    ]


@BOTH
def test_a_call_that_was_cut_is_not_run(
    toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, streaming: bool
) -> None:
    say(upstream, streaming, completion("c1", message("So", ("call_1", ADD, '{"a')), finish="length"))
    _, body, whole, id = asked(toolbridge, ask(streaming))
    assert whole
    assert b"bmcp_" not in body
    assert b'"length"' in body
    assert docs.asked("tools/call") == []
    (use,) = toolbridge.record(id)["tool_usages"]
    assert use["invocation_error"] == "not run: the answer ended before"


def test_a_client_that_did_not_ask_for_the_usage_sees_none(toolbridge: Server, upstream: Upstream) -> None:
    say(upstream, True, PICKS, ENDS)
    body = json.dumps({**ASK, "stream": True}).encode()
    _, out, whole, id = asked(toolbridge, body)
    assert whole
    assert all(one["choices"] and not one["usage"] for one in chunks(out))
    assert {one["id"] for one in chunks(out)} == {"c1"}
    assert out.endswith(chat.DONE)
    assert len(toolbridge.record(id)["token_usages"]) == 2
    assert all(
        json.loads(heard.body)["stream_options"] == USAGE["stream_options"] for heard in upstream.heard
    )


@BOTH
def test_it_works_with_copilot(
    toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, streaming: bool
) -> None:
    """Its answers of Claude's models stand in two choices."""
    picks = completion("msg_1", message("Let me add. "), message(None, MINE))
    say(upstream, streaming, picks, ENDS)
    status, body, whole, id = asked(toolbridge, ask(streaming), COPILOT, Authorization="Bearer tid=1")
    assert (status, whole) == (200, True)
    assert b"bmcp_" not in body
    said = json.loads(upstream.heard[1].body)["messages"][1]
    assert said == message("Let me add. ", MINE)
    assert [heard.header("authorization") for heard in upstream.heard] == ["Bearer tid=1"] * 2
    record = toolbridge.record(id)
    assert (len(record["token_usages"]), record["tool_usages"][0]["invocation_error"]) == (2, "")


def test_text_is_given_on_while_the_turn_runs(toolbridge: Server, upstream: Upstream) -> None:
    go = threading.Event()
    data = chat.stream(PICKS)
    cut = data.index(b"data: ", data.index(b"Let me"))
    upstream.say(stream_head(), chunk(data[:cut]), go, chunk(data[cut:]), b"0\r\n\r\n")
    say(upstream, True, ENDS)
    client = toolbridge.connect()
    client.send("POST", OPENAI, ask(True))
    client.head()
    assert client.chunk() == data[:cut]
    go.set()
    assert client.chunks()[1]


def test_an_answer_without_a_last_event_goes_on_too(toolbridge: Server, upstream: Upstream) -> None:
    upstream.say(*streamed(chat.stream(PICKS).removesuffix(chat.DONE)))
    say(upstream, True, ENDS)
    _, body, whole, id = asked(toolbridge, ask(True))
    assert whole
    assert said(body) == SAID
    assert toolbridge.record(id)["error_type"] == ""


def test_pings_come_while_a_tool_runs(toolbridge: Server, upstream: Upstream, docs: ScriptedMcp) -> None:
    go = threading.Event()
    docs.on["tools/call"].append(lambda asked: iter([go, result(asked, {"content": []})]))
    say(upstream, True, PICKS, ENDS)
    client = toolbridge.connect()
    client.send("POST", OPENAI, ask(True))
    client.head()
    heard = b""
    while heard.count(PING) < 2:
        heard += client.chunk()
    go.set()
    rest, whole = client.chunks()
    assert whole
    assert rest.endswith(chat.DONE)


@BOTH
def test_a_client_that_leaves_stops_the_tool_and_the_loop(
    toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, streaming: bool
) -> None:
    docs.say("tools/call", GONE)
    say(upstream, streaming, PICKS)
    client = toolbridge.connect()
    client.send("POST", OPENAI, ask(streaming))
    until(lambda: bool(docs.asked("tools/call")))
    client.close()
    until(lambda: bool(docs.asked("notifications/cancelled")))
    newest = toolbridge.get("/interceptions?limit=1")["results"][0]["id"]
    record = toolbridge.record(newest)
    assert (record["error_type"], record["token_usages"][0]["output_tokens"]) == ("client_closed", 4)
    assert record["tool_usages"][0]["invocation_error"] == "broken off: the client closed the connection"
    assert len(upstream.heard) == 1


@BOTH
def test_rounds_have_an_end(
    toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, streaming: bool
) -> None:
    say(upstream, streaming, PICKS, PICKS, PICKS)
    status, body, whole, id = asked(toolbridge, ask(streaming))
    error = json.loads(body) if not streaming else chunks(body)[-1]
    assert (status, whole) == ((200, False) if streaming else (502, True))
    assert error["error"]["message"] == "tool_rounds_exceeded: the model still asks for tools after 3 rounds"
    assert chat.DONE not in body
    assert (len(upstream.heard), len(docs.asked("tools/call"))) == (3, 2)
    record = toolbridge.record(id)
    assert record["error_type"] == "server_error"
    assert len(record["token_usages"]) == 3
    assert [bool(one["invocation_error"]) for one in record["tool_usages"]] == [False, False, True]


@BOTH
def test_an_upstream_that_fails_later_is_heard(
    toolbridge: Server, upstream: Upstream, streaming: bool
) -> None:
    refusal = b'{"error":{"message":"Slow down","type":"requests","param":null,"code":"rate_limit_exceeded"}}'
    say(upstream, streaming, PICKS)
    upstream.say(answer(429, refusal, "retry-after: 3"))
    status, body, whole, id = asked(toolbridge, ask(streaming))
    if streaming:
        assert (status, whole) == (200, False)
        assert chunks(body)[-1]["error"]["message"] == "Slow down"
        assert chunks(body)[-1]["error"]["code"] == "rate_limit_exceeded"
    else:
        assert (status, body) == (429, refusal)
    record = toolbridge.record(id)
    assert (record["error_type"], record["error_message"]) == ("rate_limited", "Slow down")
    assert record["status_code"] == status


@pytest.mark.parametrize("place", [b'{"content"', b'"finish_reason": "stop"', b"[DONE]"])
def test_an_upstream_that_breaks_off_later_is_no_whole_answer(
    toolbridge: Server, upstream: Upstream, place: bytes
) -> None:
    say(upstream, True, PICKS)
    data = chat.stream(ENDS).replace(b'"finish_reason":"stop"', b'"finish_reason": "stop"')
    cut = data.rindex(b"data: ", 0, data.index(place))
    upstream.say(stream_head(), chunk(data[:cut]), CLOSE)
    status, body, whole, id = asked(toolbridge, ask(True))
    assert (status, whole) == (200, False)
    assert chunks(body)[-1]["error"]["message"] == "the AI provider's answer broke off"
    assert toolbridge.record(id)["error_type"] == "server_error"


@pytest.mark.parametrize("changes", [{"tool_choice": "none"}, {"n": 2}, {"functions": [{"name": "old"}]}])
def test_where_none_are_offered_the_body_stays(
    toolbridge: Server, upstream: Upstream, changes: dict[str, object]
) -> None:
    body = ask(True, **changes)
    say(upstream, True, ENDS)
    _, out, whole, id = asked(toolbridge, body)
    assert (out, whole) == (chat.stream(ENDS), True)
    assert upstream.heard[0].body == body
    assert toolbridge.record(id)["wire_exact"] is True


@BOTH
def test_compressed_bodies_and_answers_are_given_on_decoded(
    toolbridge: Server, upstream: Upstream, streaming: bool
) -> None:
    coded = "Content-Encoding: gzip"
    for one in (PICKS, ENDS):
        data = gzip.compress(chat.stream(one) if streaming else chat.whole(one))
        upstream.say(*(streamed(data, 9, coded) if streaming else [answer(200, data, coded)]))
    client = toolbridge.connect()
    client.send("POST", OPENAI, gzip.compress(ask(streaming)), Content_Encoding="gzip")
    status, headers = client.head()
    body, whole = client.body(headers)
    assert (status, whole, "content-encoding" in headers) == (200, True, False)
    assert (said(body) if streaming else json.loads(body)["choices"][0]["message"]["content"]) == SAID
    assert [heard.header("content-encoding") for heard in upstream.heard] == [None, None]
    assert json.loads(upstream.heard[1].body)["messages"][0] == ASK["messages"][0]


def test_calls_are_counted(toolbridge: Server, upstream: Upstream, docs: ScriptedMcp) -> None:
    place = {"provider": "openai", "model": ASK["model"]}
    tool = {**place, "server": docs.url, "name": "add"}
    calls, tokens = "injected_tool_invocations_total", "tokens_total"
    before = scrape(toolbridge)
    say(upstream, True, PICKS, ENDS, completion("c3", message(None, MINE, THEIRS)))
    ids = [asked(toolbridge, ask(True))[3] for _ in range(2)]
    for id in ids:
        toolbridge.record(id)
    after = scrape(toolbridge)
    assert after.sum(calls, **tool) - before.sum(calls, **tool) == 1
    assert after.sum(tokens, type="output", **place) - before.sum(tokens, type="output", **place) == 14
    own, picked = {**place, "name": "grep"}, "non_injected_tool_selections_total"
    assert after.sum(picked, **own) - before.sum(picked, **own) == 1
    assert after.sum(picked, name=ADD) == 0
