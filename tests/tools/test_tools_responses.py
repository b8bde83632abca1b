"""Central tools on Responses: the model picks one, the bridge runs it, the client sees one response."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import openai
import pytest

from tests.support.mcp import ScriptedMcp, result
from tests.support.mcp import message as asked_of
from tests.support.responses import Json, call, dumps, response, stream, text, thought, told
from tests.support.server import Client, Server, until
from tests.support.upstream import CLOSE, GONE, LAST_CHUNK, Upstream, answer, chunk, stream_head, streamed

RESPONSES, COPILOT = "/openai/v1/responses", "/copilot/responses"
ASK = {"model": "gpt-test-2", "input": "1 + 2?"}
ADD = "bmcp_docs_add"
OURS, OWN = call("1", ADD, '{"a":1,"b":2}'), call("2", "weigh", '{"item":"tin"}')
HELLO = text("msg_1", "Let me add.")
PICKS = response("resp_1", thought("rs_1", "hm", encrypted="gAA=="), OURS)
SPEAKS = response("resp_1", thought("rs_1", "hm"), HELLO, OURS)
ENDS = response("resp_2", thought("rs_2", "aha"), text("msg_2", "It is 3."))
PING = b": keep-alive\n\n"
BOTH = pytest.mark.parametrize("streaming", [True, False])


def ask(streaming: bool, **changes: object) -> bytes:
    return dumps({**ASK, **({"stream": True} if streaming else {}), **changes})


def say(upstream: Upstream, streaming: bool, *answers: Json) -> None:
    for one in answers:
        upstream.say(*streamed(stream(one), 11) if streaming else [answer(200, dumps(one))])


def asked(server: Server, body: bytes, path: str = RESPONSES, **headers: str) -> tuple[int, bytes, bool, str]:
    return server.asked(path, body, **headers)


def final(body: bytes, streaming: bool) -> Json:
    return told(body)[-1]["response"] if streaming else json.loads(body)


def doubled(usage: Json) -> Json:
    return {key: doubled(value) if isinstance(value, dict) else 2 * value for key, value in usage.items()}


@pytest.fixture
def client(toolbridge: Server) -> Iterator[openai.OpenAI]:
    base = f"{toolbridge.url}/openai/v1"
    with openai.OpenAI(base_url=base, api_key="aib_0123456789", max_retries=0) as made:
        yield made


WAYS = ["create", "create a stream", "stream"]


def accumulated(client: openai.OpenAI, way: str, **options: object) -> openai.types.responses.Response:
    if way == "create":
        return client.responses.create(**ASK, **options)
    if way == "create a stream":
        return [*client.responses.create(**ASK, **options, stream=True)][-1].response
    with client.responses.stream(**ASK, **options) as found:
        return found.get_final_response()


@pytest.mark.parametrize("way", WAYS)
def test_a_tool_is_run_and_the_client_sees_the_last_response(
    client: openai.OpenAI, upstream: Upstream, docs: ScriptedMcp, way: str
) -> None:
    say(upstream, way != "create", PICKS, ENDS)
    found = accumulated(client, way)
    assert (found.id, found.output_text) == ("resp_2", "It is 3.")
    assert [item.id for item in found.output] == ["rs_2", "msg_2"]
    assert found.usage.to_dict() == doubled(ENDS["usage"])

    first, second = upstream.heard
    sent, again = json.loads(first.body), json.loads(second.body)
    assert [tool["name"] for tool in sent["tools"]] == [ADD]
    assert sent["parallel_tool_calls"] is False
    spoken = {"type": "message", "role": "user", "content": "1 + 2?"}
    given = {"type": "function_call_output", "call_id": "call_1", "output": "3"}
    assert again == {**sent, "input": [spoken, *PICKS["output"], given]}
    (made,) = docs.asked("tools/call")
    assert asked_of(made)["params"] == {"name": "add", "arguments": {"a": 1, "b": 2}}


@pytest.mark.parametrize("way", WAYS[:2])
def test_what_was_shown_before_stays(
    client: openai.OpenAI, upstream: Upstream, docs: ScriptedMcp, way: str
) -> None:
    say(upstream, way != "create", SPEAKS, ENDS)
    found = accumulated(client, way)
    assert (found.id, found.output_text) == ("resp_2", "Let me add.It is 3.")
    assert [item.id for item in found.output] == ["rs_1", "msg_1", "rs_2", "msg_2"]
    assert found.usage.to_dict() == doubled(ENDS["usage"])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "link", [{"store": False}, {"conversation": "conv_1"}], ids=["store", "conversation"]
)
def test_where_nothing_refers_to_it_the_response_keeps_its_first_id(
    client: openai.OpenAI, upstream: Upstream, docs: ScriptedMcp, way: str, link: Json
) -> None:
    """The SDK's helper wants one id throughout."""
    say(upstream, way != "create", SPEAKS, ENDS)
    found = accumulated(client, way, **link)
    assert (found.id, found.output_text) == ("resp_1", "Let me add.It is 3.")


@pytest.mark.parametrize("way", WAYS)
def test_a_turn_with_the_clients_own_calls_is_finished_for_it(
    client: openai.OpenAI, toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, way: str
) -> None:
    say(upstream, way != "create", response("resp_1", OURS, OWN))
    found = accumulated(client, way)
    assert [(item.name, item.arguments) for item in found.output] == [("weigh", '{"item":"tin"}')]
    assert docs.asked("tools/call") == []
    newest = toolbridge.get("/interceptions?limit=1")["results"][0]["id"]
    uses = toolbridge.record(newest)["tool_usages"]
    assert [(one["tool"], one["invocation_error"]) for one in uses] == [
        ("add", "not run: mixed with client tool calls"),
        ("weigh", ""),
    ]


@BOTH
@pytest.mark.parametrize("path", [RESPONSES, COPILOT])
def test_each_call_and_each_turn_is_recorded(
    toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, path: str, streaming: bool
) -> None:
    last = response("resp_3", thought("rs_3", "aha"), text("msg_3", "6"), OWN)
    say(upstream, streaming, SPEAKS, response("resp_2", call("9", ADD, '{"a":3}')), last)
    docs.say("tools/call", answer(500, b"no"))
    status, body, whole, id = asked(toolbridge, ask(streaming), path, Authorization="Bearer tid_0123456789")
    assert (status, whole) == (200, True)
    assert [item["id"] for item in final(body, streaming)["output"]] == [
        "rs_1",
        "msg_1",
        "rs_3",
        "msg_3",
        "fc_2",
    ]
    record = toolbridge.record(id)
    counts = ("provider_response_id", "input_tokens", "cache_read_input_tokens", "output_tokens")
    assert [tuple(one[key] for key in counts) for one in record["token_usages"]] == [
        (f"resp_{number}", 15, 5, 7) for number in (1, 2, 3)
    ]
    kinds = (
        "provider_response_id",
        "tool_call_id",
        "item_id",
        "tool",
        "input",
        "injected",
        "server_url",
        "invocation_error",
    )
    assert [tuple(one[key] for key in kinds) for one in record["tool_usages"]] == [
        (
            "resp_1", "call_1", "fc_1", "add", '{"a":1,"b":2}', True, docs.url,
            "the MCP server answered with status 500",
        ),
        ("resp_2", "call_9", "fc_9", "add", '{"a":3}', True, docs.url, ""),
        ("resp_3", "call_2", "fc_2", "weigh", '{"item":"tin"}', False, "", ""),
    ]  # fmt: skip
    assert [one["content"] for one in record["model_thoughts"]] == ["hm", "aha"]
    assert [one["prompt"] for one in record["user_prompts"]] == ["1 + 2?"]
    assert (record["error_type"], record["wire_exact"], record["status_code"]) == ("", False, 200)
    outputs = [json.loads(heard.body)["input"][-1]["output"] for heard in upstream.heard[1:]]
    assert outputs == ["Error: the MCP server answered with status 500", "3"]


@BOTH
@pytest.mark.parametrize("asks", [True, False])
def test_encrypted_thoughts_go_back_and_are_shown_if_asked_for(
    toolbridge: Server, upstream: Upstream, streaming: bool, asks: bool
) -> None:
    wanted = "reasoning.encrypted_content"
    last = response("resp_2", thought("rs_2", encrypted="gBB=="), text("msg_2", "3"))
    say(upstream, streaming, PICKS, last)
    more = {"include": [wanted]} if asks else {}
    _, body, whole, _ = asked(toolbridge, ask(streaming, store=False, **more))
    assert whole
    first, second = (json.loads(heard.body) for heard in upstream.heard)
    assert first["include"] == second["include"] == [wanted]
    assert second["input"][1] == PICKS["output"][0]
    assert (b'"encrypted_content":"gBB=="' in body, b"encrypted" in body) == (asks, asks)


@BOTH
def test_a_conversation_keeps_what_was_said(toolbridge: Server, upstream: Upstream, streaming: bool) -> None:
    say(upstream, streaming, PICKS, ENDS)
    assert asked(toolbridge, ask(streaming, conversation="conv_1"))[2]
    again = json.loads(upstream.heard[1].body)
    assert again["conversation"] == "conv_1"
    assert again["input"] == [{"type": "function_call_output", "call_id": "call_1", "output": "3"}]


def begin(server: Server) -> Client:
    client = server.connect()
    client.send("POST", RESPONSES, ask(True))
    client.head()
    return client


def pinged(client: Client) -> bytes:
    """All that came until two pings had."""
    heard = b""
    while heard.count(PING) < 2:
        heard += client.chunk()
    return heard


def test_text_is_given_on_while_the_turn_runs(toolbridge: Server, upstream: Upstream) -> None:
    go, data = threading.Event(), stream(SPEAKS)
    cut = data.index(b"event: response.output_text.done")
    upstream.say(stream_head(), chunk(data[:cut]), go, chunk(data[cut:]), LAST_CHUNK)
    say(upstream, True, ENDS)
    client = begin(toolbridge)
    assert client.chunk() == data[:cut]
    go.set()
    assert client.chunks()[1]


def test_pings_come_while_an_answer_is_held_back(toolbridge: Server, upstream: Upstream) -> None:
    """The client hears nothing of it until something in it is for the client, then all at once."""
    go, data = threading.Event(), stream(ENDS)
    cut = data.index(b"event: response.output_item.done")
    upstream.say(stream_head(), chunk(data[:cut]), go, chunk(data[cut:]), LAST_CHUNK)
    client = begin(toolbridge)
    assert pinged(client).replace(PING, b"") == b""
    go.set()
    rest, whole = client.chunks()
    assert (rest.replace(PING, b""), whole) == (data, True)


def test_pings_come_while_a_tool_runs(toolbridge: Server, upstream: Upstream, docs: ScriptedMcp) -> None:
    go = threading.Event()
    docs.on["tools/call"].append(lambda asked: iter([go, result(asked, {"content": []})]))
    say(upstream, True, SPEAKS, ENDS)
    client = begin(toolbridge)
    heard = pinged(client)
    go.set()
    rest, whole = client.chunks()
    assert whole
    found = told(heard + rest)
    assert [one["sequence_number"] for one in found] == list(range(len(found)))
    assert [item["id"] for item in found[-1]["response"]["output"]] == ["rs_1", "msg_1", "rs_2", "msg_2"]


@BOTH
def test_a_client_that_leaves_stops_the_tool_and_the_loop(
    toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, streaming: bool
) -> None:
    docs.say("tools/call", GONE)
    say(upstream, streaming, PICKS)
    client = toolbridge.connect()
    client.send("POST", RESPONSES, ask(streaming))
    until(lambda: bool(docs.asked("tools/call")))
    client.close()
    until(lambda: bool(docs.asked("notifications/cancelled")))
    newest = toolbridge.get("/interceptions?limit=1")["results"][0]["id"]
    record = toolbridge.record(newest)
    assert (record["error_type"], record["token_usages"][0]["output_tokens"]) == ("client_closed", 7)
    assert record["tool_usages"][0]["invocation_error"] == "broken off: the client closed the connection"
    assert len(upstream.heard) == 1


@BOTH
@pytest.mark.parametrize("first", [PICKS, SPEAKS])
def test_rounds_have_an_end(
    toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, streaming: bool, first: Json
) -> None:
    say(upstream, streaming, first, PICKS, PICKS)
    status, body, whole, id = asked(toolbridge, ask(streaming))
    assert (status, whole) == ((200, False) if streaming else (502, True))
    error = told(body)[-1] if streaming else json.loads(body)["error"]
    told_message = "tool_rounds_exceeded: the model still asks for tools after 3 rounds"
    assert (error["code"], error["message"]) == ("tool_rounds_exceeded", told_message)
    assert error["type"] == ("error" if streaming else "api_error")
    assert ADD.encode() not in body
    assert len(upstream.heard) == 3
    assert len(docs.asked("tools/call")) == 2
    record = toolbridge.record(id)
    assert record["error_type"] == "server_error"
    assert len(record["token_usages"]) == 3
    assert [bool(one["invocation_error"]) for one in record["tool_usages"]] == [False, False, True]


@BOTH
@pytest.mark.parametrize("first", [PICKS, SPEAKS])
def test_an_upstream_that_refuses_later_is_heard(
    toolbridge: Server, upstream: Upstream, streaming: bool, first: Json
) -> None:
    inner = {"message": "Slow down", "type": "requests", "param": None, "code": "rate_limit_exceeded"}
    refusal = dumps({"error": inner})
    say(upstream, streaming, first)
    upstream.say(answer(429, refusal, "retry-after: 3"))
    status, body, whole, id = asked(toolbridge, ask(streaming))
    if streaming:
        assert (status, whole) == (200, False)
        last = told(body)[-1]
        assert (last["type"], last["code"], last["message"]) == ("error", inner["code"], inner["message"])
    else:
        assert (status, body) == (429, refusal)
    record = toolbridge.record(id)
    assert (record["error_type"], record["error_message"]) == ("rate_limited", "Slow down")
    assert record["status_code"] == status


@BOTH
def test_an_answer_that_fails_later_is_the_last(
    toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, streaming: bool
) -> None:
    error = {"code": "server_error", "message": "oh"}
    failed = response("resp_2", OURS, usage=None, status="failed", error=error)
    say(upstream, streaming, SPEAKS, failed)
    _, body, whole, id = asked(toolbridge, ask(streaming))
    assert whole
    found = final(body, streaming)
    assert (found["id"], found["status"], found["error"]) == ("resp_2", "failed", error)
    assert found["output"] == SPEAKS["output"][:2]
    assert len(docs.asked("tools/call")) == 1
    record = toolbridge.record(id)
    assert (record["error_type"], record["error_message"]) == ("server_error", "oh")


@pytest.mark.parametrize("first", [PICKS, SPEAKS])
def test_an_upstream_that_breaks_off_later_is_no_whole_answer(
    toolbridge: Server, upstream: Upstream, first: Json
) -> None:
    say(upstream, True, first)
    data = stream(ENDS)
    upstream.say(stream_head(), chunk(data[: data.index(b"event: response.completed")]), CLOSE)
    status, body, whole, id = asked(toolbridge, ask(True))
    assert (status, whole) == (200, False)
    assert told(body)[-1]["message"] == "the AI provider's answer broke off"
    assert toolbridge.record(id)["error_type"] == "server_error"


@pytest.mark.parametrize("changes", [{"tool_choice": "none"}, {"prompt": {"id": "pmpt_1"}}, {"input": 7}])
def test_where_none_are_offered_the_body_stays(toolbridge: Server, upstream: Upstream, changes: Json) -> None:
    body = ask(True, **changes)
    say(upstream, True, PICKS)
    assert asked(toolbridge, body)[:3] == (200, stream(PICKS), True)
    assert upstream.heard[0].body == body


def test_pings_come_while_an_answer_that_goes_on_is_held_back(toolbridge: Server, upstream: Upstream) -> None:
    """The upstream is never silent, and the client sees nothing of what it says."""
    enough, (opening, rest) = threading.Event(), apart(stream(PICKS))

    def thinks() -> Iterator[object]:
        yield stream_head()
        yield chunk(opening)
        while not enough.wait(0.02):
            yield chunk(b": thinking\n\n")
        yield chunk(rest)
        yield LAST_CHUNK

    upstream.handler = lambda heard: thinks() if len(upstream.heard) == 1 else streamed(stream(ENDS), 11)
    client = toolbridge.connect()
    client.send("POST", RESPONSES, ask(True))
    client.head()
    assert [client.chunk(), client.chunk()] == [PING, PING]
    enough.set()
    given, whole = client.chunks()
    assert whole
    assert given.replace(PING, b"").startswith(b"event: response.created")


def apart(said: bytes) -> tuple[bytes, bytes]:
    """Its first event, and the others."""
    end = said.index(b"\n\n") + 2
    return said[:end], said[end:]
