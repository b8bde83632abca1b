"""Central tools on Anthropic's routes: the model picks one, the bridge runs it, the client sees one message."""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from tests.conftest import TWO_KEYS, Start
from tests.support import bedrock, claude
from tests.support.claude import message, text, thought, use
from tests.support.mcp import ScriptedMcp, result
from tests.support.mcp import message as asked_of
from tests.support.scrape import scrape
from tests.support.server import KEEPALIVE, Server, until
from tests.support.upstream import CLOSE, GONE, Upstream, answer, chunk, stream_head, streamed

MESSAGES = "/anthropic/v1/messages"
ASK = {"model": claude.MODEL, "max_tokens": 99, "messages": [{"role": "user", "content": "1 + 2?"}]}
ADD = "bmcp_docs_add"
MINE = use("toolu_1", ADD, a=1, b=2)
THEIRS = use("toolu_2", "Bash", command="ls")
PICKS = message("msg_1", thought("hm", "c2ln"), text("Let me add."), MINE, stop="tool_use")
ENDS = message("msg_2", text("It is 3."))
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
BOTH = pytest.mark.parametrize("streaming", [True, False])


def ask(streaming: bool, **changes: object) -> bytes:
    return json.dumps({**ASK, **({"stream": True} if streaming else {}), **changes}).encode()


def say(upstream: Upstream, streaming: bool, *answers: dict[str, Any]) -> None:
    for one in answers:
        upstream.say(*claude.step(one, streaming, 11))


def asked(server: Server, body: bytes, path: str = MESSAGES, **headers: str) -> tuple[int, bytes, bool, str]:
    return server.asked(path, body, **headers)


def events(stream: bytes) -> list[dict[str, Any]]:
    return [json.loads(data) for data in re.findall(rb"^data: (.*)$", stream, re.MULTILINE)]


@pytest.fixture
def client(toolbridge: Server) -> Iterator[anthropic.Anthropic]:
    base = f"{toolbridge.url}/anthropic"
    with anthropic.Anthropic(base_url=base, api_key="aib_0123456789", max_retries=0) as made:
        yield made


def accumulated(client: anthropic.Anthropic, streaming: bool, **options: object) -> anthropic.types.Message:
    if not streaming:
        return client.messages.create(**ASK, **options)
    with client.messages.stream(**ASK, **options) as stream:
        return stream.get_final_message()


@BOTH
def test_a_tool_is_run_and_the_client_sees_one_message(
    client: anthropic.Anthropic, toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, streaming: bool
) -> None:
    say(upstream, streaming, PICKS, ENDS)
    found = accumulated(client, streaming)
    assert found.id == "msg_1"
    assert [block.type for block in found.content] == ["thinking", "text", "text"]
    assert found.content[0].signature == "c2ln"
    assert [block.text for block in found.content[1:]] == ["Let me add.", "It is 3."]
    assert found.stop_reason == "end_turn"
    assert (found.usage.input_tokens, found.usage.output_tokens) == (20, 10)

    first, second = upstream.heard
    sent, again = json.loads(first.body), json.loads(second.body)
    assert [tool["name"] for tool in sent["tools"]] == [ADD]
    given = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [text("3")]}
    spoken = [{"role": "assistant", "content": PICKS["content"]}, {"role": "user", "content": [given]}]
    assert again == {**sent, "messages": [*sent["messages"], *spoken]}
    (call,) = docs.asked("tools/call")
    assert asked_of(call)["params"] == {"name": "add", "arguments": {"a": 1, "b": 2}}


@BOTH
def test_each_call_and_each_turn_is_recorded(
    toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, streaming: bool
) -> None:
    again = message("msg_2", use("toolu_9", ADD, a=3), stop="tool_use")
    say(
        upstream,
        streaming,
        PICKS,
        again,
        message("msg_3", thought("aha", "x"), text("6"), THEIRS, stop="tool_use"),
    )
    docs.say("tools/call", answer(500, b"no"))
    status, _, whole, id = asked(toolbridge, ask(streaming))
    assert (status, whole) == (200, True)
    record = toolbridge.record(id)
    assert [
        (one["provider_response_id"], one["input_tokens"], one["output_tokens"])
        for one in record["token_usages"]
    ] == [
        ("msg_1", 10, 5),
        ("msg_2", 10, 5),
        ("msg_3", 10, 5),
    ]
    told = ("provider_response_id", "tool_call_id", "tool", "injected", "server_url", "invocation_error")
    assert [tuple(one[key] for key in told) for one in record["tool_usages"]] == [
        ("msg_1", "toolu_1", "add", True, docs.url, "the MCP server answered with status 500"),
        ("msg_2", "toolu_9", "add", True, docs.url, ""),
        ("msg_3", "toolu_2", "Bash", False, "", ""),
    ]
    assert [one["content"] for one in record["model_thoughts"]] == ["hm", "aha"]
    assert [(one["provider_response_id"], one["prompt"]) for one in record["user_prompts"]] == [
        ("msg_1", "1 + 2?")
    ]
    assert (record["error_type"], record["wire_exact"], record["status_code"]) == ("", False, 200)
    assert record["cost_micros"] == 3 * (10 * 5 + 5 * 25)
    assert json.loads(upstream.heard[1].body)["messages"][-1]["content"][0]["is_error"] is True


@BOTH
def test_a_turn_with_calls_of_the_client_s_own_is_finished_for_it(
    toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, streaming: bool
) -> None:
    say(upstream, streaming, message("msg_1", MINE, THEIRS, stop="tool_use"))
    _, body, whole, id = asked(toolbridge, ask(streaming))
    assert whole
    assert b"bmcp_" not in body
    assert b'"Bash"' in body
    assert docs.asked("tools/call") == []
    uses = toolbridge.record(id)["tool_usages"]
    assert [(one["tool"], one["invocation_error"]) for one in uses] == [
        ("add", "not run: mixed with client tool calls"),
        ("Bash", ""),
    ]


def test_text_is_given_on_while_the_turn_runs(toolbridge: Server, upstream: Upstream) -> None:
    go = threading.Event()
    data = claude.stream(PICKS)
    cut = data.index(b"event: content_block_start", data.index(b"Let me"))
    upstream.say(stream_head(), chunk(data[:cut]), go, chunk(data[cut:]), b"0\r\n\r\n")
    say(upstream, True, ENDS)
    client = toolbridge.connect()
    client.send("POST", MESSAGES, ask(True))
    client.head()
    assert client.chunk() == data[:cut]
    go.set()
    assert client.chunks()[1]


def test_calls_of_one_turn_run_side_by_side(
    toolbridge: Server, upstream: Upstream, docs: ScriptedMcp
) -> None:
    """Each is answered once the other has come; the results are in the calls' order."""
    came = [threading.Event(), threading.Event()]

    def meet(asked: dict[str, Any]) -> Iterator[object]:
        place = asked["params"]["arguments"]["n"]
        came[place].set()
        yield came[1 - place]
        yield result(asked, {"content": [{"type": "text", "text": str(place)}]})

    docs.on["tools/call"] += [meet, meet]
    say(upstream, True, message("msg_1", use("a", ADD, n=0), use("b", ADD, n=1), stop="tool_use"), ENDS)
    assert asked(toolbridge, ask(True))[2]
    given = json.loads(upstream.heard[1].body)["messages"][-1]["content"]
    assert [(one["tool_use_id"], one["content"][0]["text"]) for one in given] == [("a", "0"), ("b", "1")]


@pytest.mark.parametrize("waited_for", ["tool", "answer"])
def test_pings_fill_the_silence(
    toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, waited_for: str
) -> None:
    """While a tool runs, and while the next answer is waited for."""
    go = threading.Event()
    first = [go] if waited_for == "tool" else []
    docs.on["tools/call"].append(lambda asked: iter([*first, result(asked, {"content": []})]))
    say(upstream, True, PICKS)
    upstream.say(*([] if first else [go]), *claude.step(ENDS, True))
    client = toolbridge.connect()
    client.send("POST", MESSAGES, ask(True))
    client.head()
    heard = b""
    while heard.count(PING) < 2:
        heard += client.chunk()
    go.set()
    rest, whole = client.chunks()
    assert whole
    assert events(heard + rest)[-1]["type"] == "message_stop"


@BOTH
def test_a_client_that_leaves_before_the_next_answer_ends_the_upstream(
    toolbridge: Server, upstream: Upstream, streaming: bool
) -> None:
    say(upstream, streaming, PICKS)
    upstream.say(GONE)
    client = toolbridge.connect()
    client.send("POST", MESSAGES, ask(streaming))
    upstream.wait_heard(2)
    client.close()
    assert upstream.gone.wait(20)
    newest = toolbridge.get("/interceptions?limit=1")["results"][0]["id"]
    assert toolbridge.record(newest)["error_type"] == "client_closed"


@BOTH
def test_a_client_that_leaves_stops_the_tool_and_the_loop(
    toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, streaming: bool
) -> None:
    docs.say("tools/call", GONE)
    say(upstream, streaming, PICKS)
    client = toolbridge.connect()
    client.send("POST", MESSAGES, ask(streaming))
    until(lambda: bool(docs.asked("tools/call")))
    client.close()
    until(lambda: bool(docs.asked("notifications/cancelled")))
    newest = toolbridge.get("/interceptions?limit=1")["results"][0]["id"]
    record = toolbridge.record(newest)
    assert (record["error_type"], record["token_usages"][0]["output_tokens"]) == ("client_closed", 5)
    assert record["tool_usages"][0]["invocation_error"] == "broken off: the client closed the connection"
    assert len(upstream.heard) == 1


@BOTH
def test_rounds_have_an_end(
    toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, streaming: bool
) -> None:
    say(upstream, streaming, PICKS, PICKS, PICKS)
    status, body, whole, id = asked(toolbridge, ask(streaming))
    error = json.loads(body) if not streaming else events(body)[-1]
    assert (status, whole) == ((200, False) if streaming else (502, True))
    assert error["type"] == "error"
    assert error["error"] == {
        "type": "api_error",
        "message": "tool_rounds_exceeded: the model still asks for tools after 3 rounds",
    }
    assert len(upstream.heard) == 3
    assert len(docs.asked("tools/call")) == 2
    record = toolbridge.record(id)
    assert record["error_type"] == "server_error"
    assert len(record["token_usages"]) == 3
    assert [bool(one["invocation_error"]) for one in record["tool_usages"]] == [False, False, True]


@BOTH
def test_an_upstream_that_fails_later_is_heard(
    toolbridge: Server, upstream: Upstream, streaming: bool
) -> None:
    refusal = (
        b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"req_1"}'
    )
    say(upstream, streaming, PICKS)
    upstream.say(answer(529, refusal, "retry-after: 3", "request-id: req_1"))
    status, body, whole, id = asked(toolbridge, ask(streaming))
    if streaming:
        assert (status, whole) == (200, False)
        assert events(body)[-1]["error"] == {"type": "overloaded_error", "message": "Overloaded"}
    else:
        assert (status, body) == (529, refusal)
    record = toolbridge.record(id)
    assert (record["error_type"], record["error_message"]) == ("overloaded", "Overloaded")
    assert record["status_code"] == status


def test_an_upstream_that_breaks_off_later_is_no_whole_answer(toolbridge: Server, upstream: Upstream) -> None:
    say(upstream, True, PICKS)
    data = claude.stream(ENDS)
    upstream.say(stream_head(), chunk(data[: data.index(b"event: message_delta")]), CLOSE)
    status, body, whole, id = asked(toolbridge, ask(True))
    assert (status, whole) == (200, False)
    assert events(body)[-1]["error"]["message"] == "the AI provider's answer broke off"
    assert toolbridge.record(id)["error_type"] == "server_error"


@pytest.mark.parametrize(
    ("path", "changes"),
    [
        (MESSAGES, {"tool_choice": {"type": "none"}}),
        (MESSAGES, {"model": "claude-test-haiku-1"}),
        ("/anthropic/v1/messages/count_tokens", {}),
    ],
)
def test_where_none_are_offered_the_body_stays(
    toolbridge: Server, upstream: Upstream, path: str, changes: dict[str, object]
) -> None:
    body = ask(True, **changes)
    upstream.say(*claude.step(ENDS, True))
    client = toolbridge.connect()
    client.send("POST", path, body)
    assert client.head()[0] == 200
    assert client.chunks() == (claude.stream(ENDS), True)
    assert upstream.heard[0].body == body


def test_a_provider_may_offer_none(start: Start, upstream: Upstream, docs: ScriptedMcp) -> None:
    one = {
        "type": "anthropic",
        "base_url": upstream.url,
        "keys": [{"value": "sk-ant-0123456789"}],
        "inject_tools": False,
    }
    server = start(providers=[one], mcp_servers=[{"name": "docs", "url": docs.url}])
    server.wait_ready("/readyz")
    upstream.say(*claude.step(PICKS, True))
    assert asked(server, ask(True))[1] == claude.stream(PICKS)
    assert upstream.heard[0].body == ask(True)


@BOTH
def test_compressed_bodies_and_answers_are_given_on_decoded(
    toolbridge: Server, upstream: Upstream, streaming: bool
) -> None:
    for one in (PICKS, ENDS):
        data = gzip.compress(claude.stream(one) if streaming else claude.whole(one))
        coded = "Content-Encoding: gzip"
        upstream.say(
            *streamed(data, 9, coded)
            if streaming
            else [answer(200, data, "Content-Type: application/json", coded)]
        )
    client = toolbridge.connect()
    client.send("POST", MESSAGES, gzip.compress(ask(streaming)), Content_Encoding="gzip")
    status, headers = client.head()
    body, whole = client.body(headers)
    assert (status, whole, "content-encoding" in headers) == (200, True, False)
    assert b"It is 3" in body
    assert [heard.header("content-encoding") for heard in upstream.heard] == [None, None]
    assert json.loads(upstream.heard[1].body)["messages"][0] == ASK["messages"][0]


@BOTH
def test_a_rested_key_does_not_end_the_loop(
    toolbridge_of_two_keys: Server, upstream: Upstream, streaming: bool
) -> None:
    server = toolbridge_of_two_keys
    say(upstream, streaming, PICKS)
    upstream.say(answer(429, b"{}"))
    say(upstream, streaming, ENDS)
    status, body, whole, id = asked(server, ask(streaming))
    assert (status, whole) == (200, True)
    assert b"It is 3" in body
    sent = [heard.header("x-api-key") for heard in upstream.heard]
    assert sent == [TWO_KEYS[0], TWO_KEYS[0], TWO_KEYS[1]]
    assert server.record(id)["credential_hint"] == "sk-a...6789"


@BOTH
def test_the_loop_works_on_bedrock(
    toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, streaming: bool
) -> None:
    for one in (PICKS, ENDS):
        if streaming:
            split = [event + b"\n\n" for event in claude.stream(one).split(b"\n\n")[:-1]]
            upstream.say(
                *bedrock.streamed(bedrock.frames(re.search(rb"data: (.*)", event)[1] for event in split), 17)
            )
        else:
            upstream.say(answer(200, claude.whole(one)))
    status, body, whole, id = asked(toolbridge, ask(streaming), "/bedrock/v1/messages")
    assert (status, whole) == (200, True)
    assert b"It is 3" in body
    assert b"bmcp_" not in body
    assert [bedrock.signed_by(heard) for heard in upstream.heard] == [bedrock.ACCESS_KEY] * 2
    again = json.loads(upstream.heard[1].body)
    assert again["anthropic_version"] == "bedrock-2023-05-31"
    assert again["messages"][1]["content"] == PICKS["content"]
    assert len(toolbridge.record(id)["token_usages"]) == 2


def test_calls_are_counted(toolbridge: Server, upstream: Upstream, docs: ScriptedMcp) -> None:
    place = {"provider": "anthropic", "model": claude.MODEL}
    tool = {**place, "server": docs.url, "name": "add"}
    calls, tokens = "injected_tool_invocations_total", "tokens_total"
    before = scrape(toolbridge)
    say(upstream, True, PICKS, ENDS, message("msg_3", MINE, THEIRS, stop="tool_use"))
    ids = [asked(toolbridge, ask(True))[3] for _ in range(2)]
    for id in ids:
        toolbridge.record(id)
    after = scrape(toolbridge)
    assert after.sum(calls, **tool) - before.sum(calls, **tool) == 1
    assert after.sum(tokens, type="output", **place) - before.sum(tokens, type="output", **place) == 15
    own = {**place, "name": "Bash"}
    picked = "non_injected_tool_selections_total"
    assert after.sum(picked, **own) - before.sum(picked, **own) == 1
    assert after.sum(picked, name=ADD) == before.sum(picked, name=ADD)


@pytest.mark.parametrize("kind", ["gthread", "sync", "waitress"])
@BOTH
def test_the_loop_runs_on_every_server(
    start: Start, upstream: Upstream, docs: ScriptedMcp, kind: str, streaming: bool
) -> None:
    server = start(kind=kind, mcp_servers=[{"name": "docs", "url": docs.url}])
    server.wait_ready("/readyz")
    say(upstream, streaming, PICKS, ENDS)
    status, body, whole, id = asked(server, ask(streaming))
    assert (status, whole) == (200, True)
    assert b"It is 3" in body
    assert len(server.record(id)["token_usages"]) == 2


@pytest.mark.parametrize("kind", ["gthread", "waitress"])
def test_a_client_that_leaves_stops_the_tool_in_threads_too(
    start: Start, upstream: Upstream, docs: ScriptedMcp, kind: str
) -> None:
    """waitress gives no socket: there the next ping tells."""
    server = start(kind=kind, keepalive_interval=KEEPALIVE, mcp_servers=[{"name": "docs", "url": docs.url}])
    server.wait_ready("/readyz")
    docs.say("tools/call", GONE)
    say(upstream, True, PICKS)
    client = server.connect()
    client.send("POST", MESSAGES, ask(True))
    until(lambda: bool(docs.asked("tools/call")))
    client.close()
    until(lambda: bool(docs.asked("notifications/cancelled")))
