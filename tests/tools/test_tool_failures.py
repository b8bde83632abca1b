"""Central tools in all formats: upstreams and keys that fail after the first answer."""

from __future__ import annotations

import gzip
import json

import pytest

from tests.support.mcp import ScriptedMcp
from tests.support.mcp import message as mcp_message
from tests.support.server import TIMEOUT_SECONDS, Server
from tests.support.tool_dialects import (
    ADD,
    CALLS,
    CALLS_QUIETLY,
    DIALECTS,
    ENDS,
    Answer,
    ToolDialect,
    outcomes,
)
from tests.support.upstream import (
    CLOSE,
    RESET,
    WAIT_FOR_CLOSE,
    Step,
    Upstream,
    chunk,
    event_stream,
    http_response,
    stream_head,
)
from tests.tools.conftest import KEYS

BROKE_OFF = "the AI provider's answer broke off"
UNREACHABLE = "the AI provider could not be reached"
FIRST_ANSWERS = pytest.mark.parametrize("first", [CALLS, CALLS_QUIETLY], ids=["text", "no text"])

# The upstream


@FIRST_ANSWERS
def test_the_number_of_rounds_is_limited(
    api: ToolDialect,
    toolbridge: Server,
    upstream: Upstream,
    docs: ScriptedMcp,
    streaming: bool,
    first: Answer,
) -> None:
    api.enqueue(upstream, streaming, first, CALLS_QUIETLY, CALLS_QUIETLY)
    status, body, whole, id = toolbridge.post(api.path, api.request(streaming))
    assert (status, whole) == ((200, False) if streaming else (502, True))
    message = "tool_rounds_exceeded: the model still asks for tools after 3 rounds"
    error = api.error("api_error", "tool_rounds_exceeded", message, streaming)
    assert api.read_error(body, streaming) == error
    assert ADD.encode() not in body
    assert b"[DONE]" not in body
    assert len(upstream.requests) == 3
    assert len(docs.requests("tools/call")) == 2
    record = toolbridge.record(id)
    assert record["error_type"] == "server_error"
    assert len(record["token_usages"]) == 3
    assert [bool(use["invocation_error"]) for use in record["tool_usages"]] == [False, False, True]


@FIRST_ANSWERS
@pytest.mark.parametrize(
    ("status", "type", "code", "message", "recorded"),
    [
        (429, "requests", "rate_limit_exceeded", "Slow down", "rate_limited"),
        (529, "overloaded_error", "overloaded", "Overloaded", "overloaded"),
    ],
)
def test_a_later_refusal_is_passed_on(
    api: ToolDialect,
    toolbridge: Server,
    upstream: Upstream,
    streaming: bool,
    first: Answer,
    status: int,
    type: str,
    code: str,
    message: str,
    recorded: str,
) -> None:
    refusal = api.error_body(type, code, message)
    api.enqueue(upstream, streaming, first)
    upstream.enqueue(http_response(status, refusal, "retry-after: 3", "request-id: req_1"))
    status_sent, body, whole, id = toolbridge.post(api.path, api.request(streaming))
    if streaming:
        assert (status_sent, whole) == (200, False)
        assert api.read_error(body, streaming) == api.error(type, code, message, streaming)
    else:
        assert (status_sent, body) == (status, refusal)
    record = toolbridge.record(id)
    assert (record["error_type"], record["error_message"]) == (recorded, message)
    assert record["status_code"] == status_sent


@FIRST_ANSWERS
@pytest.mark.parametrize(
    ("api", "cut"),
    [pytest.param(api, cut, id=f"{api}-before {name}") for api in DIALECTS for name, cut in api.cuts],
    indirect=["api"],
)
def test_a_later_answer_that_breaks_off_is_not_whole(
    api: ToolDialect, toolbridge: Server, upstream: Upstream, first: Answer, cut: bytes
) -> None:
    api.enqueue(upstream, True, first)
    upstream.enqueue(stream_head(), chunk(api.stream_before(ENDS, cut)), CLOSE)
    status, body, whole, id = toolbridge.post(api.path, api.request(True))
    assert (status, whole) == (200, False)
    assert api.read_error(body, True)["message"] == BROKE_OFF
    assert toolbridge.record(id)["error_type"] == "server_error"


def test_an_upstream_that_does_not_end_its_stream_is_closed(
    api: ToolDialect, toolbridge: Server, upstream: Upstream
) -> None:
    upstream.enqueue(stream_head(), chunk(api.stream(CALLS)), WAIT_FOR_CLOSE)
    api.enqueue(upstream, True, ENDS)
    status, body, whole, id = toolbridge.post(api.path, api.request(True))
    assert (status, whole, api.has_last_event(body)) == (200, True, True)
    assert upstream.peer_closed.wait(TIMEOUT_SECONDS)
    assert toolbridge.record(id)["error_type"] == ""


def later_answers(api: ToolDialect) -> list[tuple[str, bool, list[Step], str]]:
    """Each with its name, whether the client streams, and the message of the error; "" if it is used."""
    stream, whole, coding = api.stream(ENDS), api.whole(ENDS), "Content-Encoding: gzip"
    location = "Location: http://127.0.0.1:1/"
    return [
        ("redirect", True, [http_response(302, b"", location)], "the AI provider answered with status 302"),
        ("HTML", True, [http_response(502, b"<html>" * 999_999, kind="text/html")], "the AI provider answered with status 502"),
        ("JSON for a stream", True, [http_response(200, whole)], BROKE_OFF),
        ("stream for JSON", False, event_stream(stream), BROKE_OFF),
        ("upgrade", True, [b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"], UNREACHABLE),
        ("no HTTP", False, [b"no HTTP\r\n\r\n", CLOSE], UNREACHABLE),
        ("empty", True, [http_response(200, b"")], BROKE_OFF),
        ("damaged gzip", True, event_stream(b"xx" + gzip.compress(stream), 9, coding), BROKE_OFF),
        ("gzip stream", True, event_stream(gzip.compress(stream), 9, coding), ""),
        ("gzip", False, [http_response(200, gzip.compress(whole), coding)], ""),
        ("early hints", True, [b"HTTP/1.1 103 X\r\nLink: x\r\n\r\n", *event_stream(stream)], ""),
        ("ping after the end", True, event_stream(stream + api.keepalive), ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("api", "streaming", "steps", "message"),
    [pytest.param(api, *case, id=f"{api}-{name}") for api in DIALECTS for name, *case in later_answers(api)],
    indirect=["api", "streaming"],
)
def test_a_later_answer_of_another_kind(
    api: ToolDialect,
    toolbridge: Server,
    upstream: Upstream,
    docs: ScriptedMcp,
    streaming: bool,
    steps: list[Step],
    message: str,
) -> None:
    api.enqueue(upstream, streaming, CALLS)
    upstream.enqueue(*steps)
    status, body, whole, id = toolbridge.post(api.path, api.request(streaming))
    record = toolbridge.record(id)
    if message:
        error = api.read_error(body, streaming)
        code = (
            "upstream_unreachable"
            if message == UNREACHABLE
            else "upstream_cut"
            if message == BROKE_OFF
            else "upstream_error"
        )
        assert error == api.error("api_error", code, message, streaming)
    else:
        assert api.read(body.replace(api.keepalive, b""), streaming).text.endswith("It is 3.")
    assert (status, whole) == ((200, not message) if streaming else (502 if message else 200, True))
    assert (record["error_type"] == "", record["error_message"]) == (not message, message)
    assert outcomes(record) == [("call_1", "")]


@pytest.mark.parametrize(
    ("pieces", "value", "runs"),
    [
        ([], {}, True),
        (['{"a":"\ud83e', '\udd14"}'], {"a": "🤔"}, True),
        (['{"a":"\ud83e"}'], {"a": "\ud83e"}, True),
        (['{"a":1,', '"a":2}'], {"a": 2}, True),
        (['{"a":NaN}'], {}, False),
        (['{"a":1e999}'], {"a": float("inf")}, False),
        (['{"a":'], {}, False),
        (["[]"], {}, False),
        (['{"a":' * 2000 + "1" + "}" * 2000], {}, False),
    ],
    ids=[
        "empty",
        "pair in two pieces",
        "half a pair",
        "member twice",
        "NaN",
        "infinity",
        "cut",
        "array",
        "deep",
    ],
)
def test_odd_arguments_spoil_neither_the_call_nor_the_next_request(
    api: ToolDialect,
    toolbridge: Server,
    upstream: Upstream,
    docs: ScriptedMcp,
    pieces: list[str],
    value: object,
    runs: bool,
) -> None:
    """`value` is what a format without texts for arguments sends back."""
    upstream.enqueue(*event_stream(api.stream_of_call(pieces)))
    api.enqueue(upstream, True, ENDS)
    status, body, whole, _ = toolbridge.post(api.path, api.request(True))
    assert (status, whole, api.has_last_event(body)) == (200, True, True)
    request = json.loads(upstream.requests[1].body, parse_constant=pytest.fail)
    assert api.sent_arguments(request) == api.arguments_to_send(pieces, value)
    arguments = [mcp_message(received)["params"]["arguments"] for received in docs.requests("tools/call")]
    assert arguments == ([value] if runs else [])
    text = "3" if runs else "Error: the tool's input is not a JSON object"
    assert api.tool_results(request) == [("call_1", text)]


@pytest.mark.parametrize("step", [CLOSE, RESET], ids=["close", "reset"])
def test_a_connection_that_died_while_the_tool_ran_is_replaced(
    api: ToolDialect, toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, step: Step
) -> None:
    api.enqueue(upstream, True, CALLS)
    upstream.enqueue(step)
    api.enqueue(upstream, True, ENDS)
    assert toolbridge.post(api.path, api.request(True))[2]
    assert len(docs.requests("tools/call")) == 1
    assert upstream.requests[1].body == upstream.requests[2].body


# Keys


def test_a_key_that_cools_down_does_not_end_the_dialogue(
    api: ToolDialect, toolbridge_of_two_keys: Server, upstream: Upstream, streaming: bool
) -> None:
    server = toolbridge_of_two_keys
    api.enqueue(upstream, streaming, CALLS)
    upstream.enqueue(http_response(429, b"{}"))
    api.enqueue(upstream, streaming, ENDS)
    status, body, whole, id = server.post(api.path, api.request(streaming))
    assert (status, whole) == (200, True)
    assert api.read(body, streaming).text.endswith("It is 3.")
    sent = [received.header(api.key_header) for received in upstream.requests]
    assert sent == [api.key_prefix + key for key in (KEYS[0], KEYS[0], KEYS[1])]
    assert server.record(id)["credential_hint"] == "sk-s...6789"


def test_keys_that_cool_down_for_no_time_were_rate_limited(
    api: ToolDialect, toolbridge_of_two_keys: Server, upstream: Upstream, streaming: bool
) -> None:
    server = toolbridge_of_two_keys
    api.enqueue(upstream, streaming, CALLS)
    upstream.enqueue(http_response(429, b"{}", "Retry-After: 0"))
    upstream.enqueue(http_response(429, b"{}", "Retry-After: 0"))
    status, body, _, id = server.post(api.path, api.request(streaming))
    message = "all configured keys are rate-limited (retry after 1s)"
    error = api.error("rate_limit_error", "rate_limit_exceeded", message, streaming)
    assert api.read_error(body, streaming) == error
    assert (status, server.record(id)["error_type"]) == (200 if streaming else 429, "rate_limited")


@pytest.mark.parametrize("is_later", [False, True], ids=["in the stream", "later"])
def test_a_key_in_an_upstreams_error_is_not_recorded(
    api: ToolDialect, toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, is_later: bool
) -> None:
    """In the middle of a stream the upstream's words pass; the bridge's own error leaves the key out."""
    message = f"{api.central_key} may not"
    if is_later:
        api.enqueue(upstream, True, CALLS)
        upstream.enqueue(http_response(403, api.error_body("permission_error", "permission_error", message)))
    else:
        begun = api.stream_without_end(CALLS)
        upstream.enqueue(*event_stream(begun + api.error_event("permission_error", message)))
    _, body, _, id = toolbridge.post(api.path, api.request(True))
    record = toolbridge.record(id)
    masked = f"{api.central_key[:4]}...6789 may not"
    assert record["error_message"] == masked
    assert outcomes(record) == [("call_1", "" if is_later else f"not run: {masked}")]
    assert (api.central_key in body.decode()) is not is_later
