"""Central tools on the routes of OpenAI's chat completions: usage, split choices, missing ends."""

from __future__ import annotations

import json

from tests.support import chat
from tests.support.chat import completion, message, token_counts
from tests.support.server import Server
from tests.support.sse import read_events
from tests.support.tool_dialects import ADD, CALLS, CHAT, COPILOT_TOKEN, ENDS, WHOLE_TEXT
from tests.support.upstream import Upstream, event_stream

OFFERED_CALL = ("call_1", ADD, '{"a": 1,"b":2}')
FIRST = completion("c1", message("Let me add. ", OFFERED_CALL))
LAST = completion("c2", message("It is 3."), input_tokens=20, output_tokens=6)


def test_the_usage_is_that_of_all_answers(toolbridge: Server, upstream: Upstream, streaming: bool) -> None:
    for answer in (FIRST, LAST):
        upstream.enqueue(*chat.steps(answer, streaming, 11))
    assert CHAT.use_package(toolbridge.url, streaming)["usage"] == token_counts(29, 10, 2)


def test_a_client_that_did_not_ask_for_the_usage_sees_none(toolbridge: Server, upstream: Upstream) -> None:
    CHAT.enqueue(upstream, True, CALLS, ENDS)
    body = json.dumps({**CHAT.ask(), "stream": True}).encode()
    _, received, whole, id = toolbridge.post(CHAT.path, body)
    assert whole
    assert all(chunk["choices"] and not chunk["usage"] for chunk in read_events(received))
    assert {chunk["id"] for chunk in read_events(received)} == {"answer_1"}
    assert received.endswith(chat.DONE)
    assert len(toolbridge.record(id)["token_usages"]) == 2
    requests = [json.loads(received.body) for received in upstream.requests]
    assert all(request["stream_options"] == {"include_usage": True} for request in requests)


def test_an_answer_in_two_choices_is_one_turn(
    toolbridge: Server, upstream: Upstream, streaming: bool
) -> None:
    """Copilot writes answers of Claude's models so."""
    split = completion("msg_1", message("Let me add. "), message(None, OFFERED_CALL))
    for answer in (split, LAST):
        upstream.enqueue(*chat.steps(answer, streaming, 11))
    status, body, whole, id = toolbridge.post(
        CHAT.copilot_path, CHAT.request(streaming), Authorization=COPILOT_TOKEN
    )
    assert (status, whole) == (200, True)
    assert b"bmcp_" not in body
    assert json.loads(upstream.requests[1].body)["messages"][1] == message("Let me add. ", OFFERED_CALL)
    assert [received.header("authorization") for received in upstream.requests] == [COPILOT_TOKEN] * 2
    record = toolbridge.record(id)
    assert (len(record["token_usages"]), record["tool_usages"][0]["invocation_error"]) == (2, "")


def test_an_answer_without_a_last_event_is_followed_too(toolbridge: Server, upstream: Upstream) -> None:
    upstream.enqueue(*event_stream(CHAT.stream(CALLS).removesuffix(chat.DONE)))
    CHAT.enqueue(upstream, True, ENDS)
    _, body, whole, id = toolbridge.post(CHAT.path, CHAT.request(True))
    assert whole
    assert CHAT.read(body, True).text == WHOLE_TEXT
    assert toolbridge.record(id)["error_type"] == ""
