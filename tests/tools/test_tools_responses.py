"""Central tools on the routes of Responses: which response the client sees, and what is still buffered."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import openai
import pytest

from tests.support.mcp import ScriptedMcp
from tests.support.responses import Json, call, dumps, response, stream, text, thought
from tests.support.server import Client, Server
from tests.support.sse import read_events
from tests.support.tool_dialects import ADD, GATEWAY_TOKEN, RESPONSES
from tests.support.upstream import LAST_CHUNK, Upstream, chunk, event_stream, http_response, stream_head

OFFERED_CALL, CLIENT_CALL = call("1", ADD, '{"a":1,"b":2}'), call("2", "weigh", '{"item":"tin"}')
CALLS_QUIETLY = response("resp_1", thought("rs_1", "hm", encrypted="gAA=="), OFFERED_CALL)
CALLS = response("resp_1", thought("rs_1", "hm"), text("msg_1", "Let me add."), OFFERED_CALL)
ENDS = response("resp_2", thought("rs_2", "aha"), text("msg_2", "It is 3."))


def enqueue(upstream: Upstream, streaming: bool, *answers: Json) -> None:
    for answer in answers:
        steps = event_stream(stream(answer), 11) if streaming else [http_response(200, dumps(answer))]
        upstream.enqueue(*steps)


def read(body: bytes, streaming: bool) -> Json:
    """The response that the client sees."""
    seen: Json = read_events(body)[-1]["response"] if streaming else json.loads(body)
    return seen


def doubled(usage: Json) -> Json:
    return {key: doubled(value) if isinstance(value, dict) else 2 * value for key, value in usage.items()}


# How the client uses OpenAI's package

METHODS = ["create", "create a stream", "stream"]


@pytest.fixture
def client(toolbridge: Server) -> Iterator[openai.OpenAI]:
    base = f"{toolbridge.url}/openai/v1"
    with openai.OpenAI(base_url=base, api_key=GATEWAY_TOKEN, max_retries=0) as client:
        yield client


def ask(client: openai.OpenAI, method: str, **options: object) -> openai.types.responses.Response:
    if method == "create":
        return client.responses.create(**RESPONSES.ask(), **options)
    if method == "create a stream":
        return [*client.responses.create(**RESPONSES.ask(), **options, stream=True)][-1].response
    with client.responses.stream(**RESPONSES.ask(), **options) as events:
        return events.get_final_response()


@pytest.mark.parametrize("method", METHODS)
def test_the_client_sees_the_last_response(
    client: openai.OpenAI, upstream: Upstream, docs: ScriptedMcp, method: str
) -> None:
    enqueue(upstream, method != "create", CALLS_QUIETLY, ENDS)
    seen = ask(client, method)
    assert (seen.id, seen.output_text) == ("resp_2", "It is 3.")
    assert [item.id for item in seen.output] == ["rs_2", "msg_2"]
    assert seen.usage.to_dict() == doubled(ENDS["usage"])
    first, second = (json.loads(received.body) for received in upstream.requests)
    assert RESPONSES.tool_names(first) == [ADD]
    prompt = {"type": "message", "role": "user", "content": "1 + 2?"}
    output = {"type": "function_call_output", "call_id": "call_1", "output": "3"}
    assert second == {**first, "input": [prompt, *CALLS_QUIETLY["output"], output]}
    assert len(docs.requests("tools/call")) == 1


@pytest.mark.parametrize("method", METHODS[:2])
def test_items_that_were_shown_before_stay(
    client: openai.OpenAI, upstream: Upstream, docs: ScriptedMcp, method: str
) -> None:
    enqueue(upstream, method != "create", CALLS, ENDS)
    seen = ask(client, method)
    assert (seen.id, seen.output_text) == ("resp_2", "Let me add.It is 3.")
    assert [item.id for item in seen.output] == ["rs_1", "msg_1", "rs_2", "msg_2"]
    assert seen.usage.to_dict() == doubled(ENDS["usage"])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "link", [{"store": False}, {"conversation": "conv_1"}], ids=["store", "conversation"]
)
def test_a_response_that_nothing_refers_to_keeps_its_first_id(
    client: openai.OpenAI, upstream: Upstream, docs: ScriptedMcp, method: str, link: Json
) -> None:
    """The package's `stream` wants one id throughout."""
    enqueue(upstream, method != "create", CALLS, ENDS)
    seen = ask(client, method, **link)
    assert (seen.id, seen.output_text) == ("resp_1", "Let me add.It is 3.")


@pytest.mark.parametrize("method", METHODS)
def test_the_package_sees_the_clients_own_calls_alone(
    client: openai.OpenAI, upstream: Upstream, docs: ScriptedMcp, method: str
) -> None:
    enqueue(upstream, method != "create", response("resp_1", OFFERED_CALL, CLIENT_CALL))
    seen = ask(client, method)
    assert [(item.name, item.arguments) for item in seen.output] == [("weigh", '{"item":"tin"}')]
    assert docs.requests("tools/call") == []


def test_a_call_that_only_the_last_event_tells_is_run(
    toolbridge: Server, upstream: Upstream, docs: ScriptedMcp
) -> None:
    """Some upstreams send no events for the items of calls."""
    is_call = (b'"output_index":1', b'"output_index": 1')
    events = [
        event for event in stream(CALLS_QUIETLY).split(b"\n\n") if not any(map(event.__contains__, is_call))
    ]
    upstream.enqueue(stream_head(), chunk(b"\n\n".join(events)), LAST_CHUNK)
    enqueue(upstream, True, ENDS)
    _, body, whole, id = toolbridge.post(RESPONSES.path, RESPONSES.request(True))
    assert whole
    assert [item["id"] for item in read(body, True)["output"]] == ["rs_2", "msg_2"]
    assert len(docs.requests("tools/call")) == 1
    second = json.loads(upstream.requests[1].body)["input"]
    assert [item["type"] for item in second] == [
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
    ]
    assert [usage["invocation_error"] for usage in toolbridge.record(id)["tool_usages"]] == [""]


# Items, conversations and failures


def test_items_of_rounds_that_show_nothing_are_left_out(
    toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, streaming: bool
) -> None:
    last = response("resp_3", thought("rs_3", "aha"), text("msg_3", "6"), CLIENT_CALL)
    enqueue(upstream, streaming, CALLS, response("resp_2", call("9", ADD, '{"a":3}')), last)
    _, body, whole, id = toolbridge.post(RESPONSES.path, RESPONSES.request(streaming))
    assert whole
    ids = [item["id"] for item in read(body, streaming)["output"]]
    assert ids == ["rs_1", "msg_1", "rs_3", "msg_3", "fc_2"]
    counts = ("provider_response_id", "input_tokens", "cache_read_input_tokens", "output_tokens")
    assert [tuple(usage[key] for key in counts) for usage in toolbridge.record(id)["token_usages"]] == [
        (f"resp_{number}", 15, 5, 7) for number in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    "store", [{}, {"store": True}, {"store": False}], ids=["default", "stored", "not stored"]
)
@pytest.mark.parametrize("asks", [True, False], ids=["asked for", "not asked for"])
def test_encrypted_thoughts_go_back_and_are_shown_if_asked_for(
    toolbridge: Server, upstream: Upstream, streaming: bool, asks: bool, store: dict[str, bool]
) -> None:
    wanted = "reasoning.encrypted_content"
    last = response("resp_2", thought("rs_2", encrypted="gBB=="), text("msg_2", "3"))
    enqueue(upstream, streaming, CALLS_QUIETLY, last)
    include = {"include": [wanted]} if asks else {}
    body = RESPONSES.request(streaming, **store, **include)
    _, body, whole, _ = toolbridge.post(RESPONSES.path, body)
    assert whole
    first, second = (json.loads(received.body) for received in upstream.requests)
    assert first["include"] == second["include"] == [wanted]
    assert second["input"][1] == CALLS_QUIETLY["output"][0]
    assert (b'"encrypted_content":"gBB=="' in body, b"encrypted" in body) == (asks, asks)


def test_a_conversation_is_sent_the_results_alone(
    toolbridge: Server, upstream: Upstream, streaming: bool
) -> None:
    enqueue(upstream, streaming, CALLS_QUIETLY, ENDS)
    assert toolbridge.post(RESPONSES.path, RESPONSES.request(streaming, conversation="conv_1"))[2]
    follow_up = json.loads(upstream.requests[1].body)
    assert follow_up["conversation"] == "conv_1"
    assert follow_up["input"] == [{"type": "function_call_output", "call_id": "call_1", "output": "3"}]


def test_an_answer_that_fails_later_is_the_last(
    toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, streaming: bool
) -> None:
    error = {"code": "server_error", "message": "oh"}
    failed = response("resp_2", OFFERED_CALL, usage=None, status="failed", error=error)
    enqueue(upstream, streaming, CALLS, failed)
    _, body, whole, id = toolbridge.post(RESPONSES.path, RESPONSES.request(streaming))
    assert whole
    seen = read(body, streaming)
    assert (seen["id"], seen["status"], seen["error"]) == ("resp_2", "failed", error)
    assert seen["output"] == CALLS["output"][:2]
    assert len(docs.requests("tools/call")) == 1
    record = toolbridge.record(id)
    assert (record["error_type"], record["error_message"]) == ("server_error", "oh")


# Answers that are buffered


def begin(server: Server) -> Client:
    client = server.connect()
    client.send("POST", RESPONSES.path, RESPONSES.request(True))
    client.head()
    return client


def without_pings(stream: bytes) -> bytes:
    return stream.replace(RESPONSES.keepalive, b"")


def test_pings_come_while_an_answer_is_held_back(toolbridge: Server, upstream: Upstream) -> None:
    """The client gets nothing of it until something in it is for the client, then all at once."""
    go, data = threading.Event(), stream(ENDS)
    cut = data.index(b"event: response.output_item.done")
    upstream.enqueue(stream_head(), chunk(data[:cut]), go, chunk(data[cut:]), LAST_CHUNK)
    client = begin(toolbridge)
    assert [client.chunk(), client.chunk()] == [RESPONSES.keepalive] * 2
    go.set()
    rest, whole = client.chunks()
    assert (without_pings(rest), whole) == (data, True)


def test_pings_come_while_an_answer_that_goes_on_is_held_back(toolbridge: Server, upstream: Upstream) -> None:
    """The upstream is never silent, and the client sees nothing of what it sends."""
    data = stream(CALLS_QUIETLY)
    enough, first_event_end = threading.Event(), data.index(b"\n\n") + 2

    def think() -> Iterator[object]:
        yield stream_head()
        yield chunk(data[:first_event_end])
        while not enough.wait(0.02):
            yield chunk(b": thinking\n\n")
        yield chunk(data[first_event_end:])
        yield LAST_CHUNK

    upstream.handler = lambda received: (
        think() if len(upstream.requests) == 1 else event_stream(stream(ENDS), 11)
    )
    client = begin(toolbridge)
    assert [client.chunk(), client.chunk()] == [RESPONSES.keepalive] * 2
    enough.set()
    rest, whole = client.chunks()
    assert whole
    assert without_pings(rest).startswith(b"event: response.created")
