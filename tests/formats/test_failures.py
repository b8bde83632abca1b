"""Errors in every shape, in answers of every status and in streams."""

from __future__ import annotations

import json

import pytest

from aibridge_flask.formats import CHAT, MESSAGES, RESPONSES, error_fold, parse_error
from aibridge_flask.model import Failure, RequestFacts, Tool
from aibridge_flask.protocols import Format
from tests.support import chat, claude, responses
from tests.support.server import Server
from tests.support.tool_dialects import ADD
from tests.support.upstream import Upstream, event_stream, http_response

FORMATS = pytest.mark.parametrize("wire_format", [CHAT, MESSAGES, RESPONSES], ids=lambda each: each.NAME)
LOADING = "the model is loading"
SHAPES = [
    ({"error": LOADING}, "unknown", LOADING),
    ({"type": "error", "message": LOADING}, "unknown", LOADING),
    ({"type": "error", "error": LOADING}, "unknown", LOADING),
    ({"type": "error", "error": {"type": "overloaded_error", "message": LOADING}}, "overloaded", LOADING),
    ({"object": "error", "message": LOADING, "type": "BadRequestError", "code": 400}, "bad_request", LOADING),
    ({"error": {"message": LOADING, "code": 429, "metadata": {}}}, "rate_limited", LOADING),
    ({"error": {"message": LOADING, "code": "500"}}, "server_error", LOADING),
    ({"error": {"message": {"detail": LOADING}, "type": "server_error"}}, "server_error", LOADING),
    ({"error": {"message": {"why": 1}}}, "unknown", '{"why":1}'),
    ({"error": [{"message": LOADING}]}, "unknown", LOADING),
    ({"error": {"errors": [{"message": LOADING}, {"message": "later"}]}}, "unknown", f"{LOADING}; later"),
    ({"error": {"code": 503}}, "overloaded", '{"code":503}'),
    ({"error": True}, "unknown", ""),
]
NONE = [
    {"error": None},
    {"error": {}},
    {"error": ""},
    {"detail": "fine"},
    {"type": "message"},
    [],
    [None],
    "x",
    1,
]
HELLO = {
    "chat": chat.text("c", "Hi"),
    "messages": claude.stream(claude.message("m", claude.text("Hi"))).rpartition(b"event: message_delta")[0],
    "responses": responses.stream(responses.response("r")).rpartition(b"event: ")[0],
}


def body_failure(wire_format: Format, data: bytes) -> Failure:
    fold = wire_format.blocking_fold()
    assert fold.feed(data) + fold.end() == data
    return fold.turn().failure


def stream_failure(wire_format: Format, *pieces: bytes) -> Failure:
    fold = wire_format.fold(RequestFacts(streaming=True))
    assert b"".join([fold.feed(piece) for piece in pieces]) + fold.end() == b"".join(pieces)
    assert not fold.complete
    return fold.turn().failure


@FORMATS
@pytest.mark.parametrize(("error", "type", "message"), SHAPES)
def test_an_error_with_status_200_is_a_failure(
    wire_format: Format, error: object, type: str, message: str
) -> None:
    data, hello = json.dumps(error).encode(), HELLO[wire_format.NAME]
    expected = Failure(type, message)
    assert body_failure(wire_format, data) == body_failure(wire_format, b"[%s]" % data) == expected
    for event in (b"data: %s\n\n" % data, b"event: error\ndata: %s\n\n" % data):
        assert stream_failure(wire_format, event) == expected
        assert stream_failure(wire_format, hello, event) == expected
        assert stream_failure(wire_format, hello + event) == expected


@FORMATS
def test_an_event_named_error_needs_no_shape(wire_format: Format) -> None:
    for data, message in ((b'{"message":"late"}', "late"), (b'"late"', "late"), (b"{}", "")):
        event = b"event: error\ndata: %s\n\n" % data
        assert stream_failure(wire_format, HELLO[wire_format.NAME] + event) == Failure("unknown", message)


@FORMATS
@pytest.mark.parametrize("value", NONE)
def test_what_tells_no_error_is_no_failure(wire_format: Format, value: object) -> None:
    data = json.dumps(value).encode()
    assert not body_failure(wire_format, data)
    assert not stream_failure(wire_format, HELLO[wire_format.NAME] + b"data: %s\n\n" % data)


@pytest.mark.parametrize("member", ["delta", "message"])
def test_an_error_of_a_choice_is_a_failure(member: str) -> None:
    """OpenRouter's, if the provider behind it breaks off."""
    choice = {"index": 0, member: {"content": "Hi"}, "error": {"code": 502, "message": LOADING}}
    data = json.dumps({"id": "c", "choices": [choice]}).encode()
    failure = Failure("server_error", LOADING)
    assert body_failure(CHAT, data) == stream_failure(CHAT, b"data: %s\n\n" % data) == failure


@pytest.mark.parametrize(
    ("error", "message"),
    [
        *((error, message) for error, _, message in SHAPES),
        ({"detail": LOADING}, LOADING),
        ({"detail": {"message": LOADING}}, LOADING),
        (
            {"detail": [{"loc": ["body", "messages"], "msg": LOADING, "type": "v"}]},
            f"body.messages: {LOADING}",
        ),
        ({"detail": [{"msg": LOADING}, {"msg": "and this"}]}, f"{LOADING}; and this"),
        ([{"error": {"code": 400, "message": LOADING, "status": "INVALID_ARGUMENT"}}], LOADING),
        ({"message": LOADING}, LOADING),
        ({"message": {"error": LOADING}}, LOADING),
        ({"error": "invalid_client", "error_description": LOADING}, LOADING),
        ({"errors": [LOADING]}, LOADING),
        (LOADING, LOADING),
        ([], ""),
        ([[[[[[[[[LOADING]]]]]]]]], ""),
        ({"choices": []}, ""),
        (None, ""),
        ({"error": "x" * 5000}, "x" * 1000),
    ],
)
def test_an_errors_words_are_found(error: object, message: str) -> None:
    data = json.dumps(error).encode()
    fold = error_fold(422)
    assert fold.feed(data) + fold.end() == data
    assert fold.turn().failure == Failure("bad_request", message)
    assert parse_error(data)[2] == message


@FORMATS
def test_an_error_is_no_answer_for_tools(wire_format: Format) -> None:
    """With offered tools it passes unchanged, too."""
    tool = Tool(ADD, "sum", "http://sum/mcp", "add", "Adds.", {"type": "object"})
    request = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"input":"hi"}'
    facts, data = RequestFacts("m"), json.dumps({"error": LOADING}).encode()
    fold = wire_format.blocking_splice(wire_format.offer(request, facts, (tool,)), facts)
    assert fold.feed(data) + fold.end() == data
    assert (fold.awaits_tools, fold.turn().failure) == (False, Failure("unknown", LOADING))


PATHS = {
    "chat": "/openai/v1/chat/completions",
    "messages": "/anthropic/v1/messages",
    "responses": "/openai/v1/responses",
}


@FORMATS
@pytest.mark.parametrize("status", [200, 422])
@pytest.mark.parametrize("streaming", [False, True])
def test_an_errors_words_are_recorded(
    server: Server, upstream: Upstream, wire_format: Format, status: int, streaming: bool
) -> None:
    data = json.dumps({"error": LOADING} if status == 200 else {"detail": [{"msg": LOADING}]}).encode()
    in_stream = streaming and status == 200
    answer = b"data: %s\n\n" % data if in_stream else data
    for _ in range(2):  # a chat stream's body is changed, so it is sent once more as the client wrote it
        upstream.enqueue(*(event_stream(answer) if in_stream else [http_response(status, answer)]))
    request = {
        "model": "m",
        "stream": streaming,
        "messages": [{"role": "user", "content": "hi"}],
        "input": "hi",
    }
    got = server.post(PATHS[wire_format.NAME], json.dumps(request).encode())
    assert got[:3] == (status, answer, True)
    record = server.record(got[3])
    expected = ("unknown" if status == 200 else "bad_request", LOADING)
    assert (record["error_type"], record["error_message"]) == expected
