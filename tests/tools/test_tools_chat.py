"""Central tools on the routes of OpenAI's chat completions: usage, split choices, missing ends."""

from __future__ import annotations

import json
from typing import Any

from tests.support import chat
from tests.support.chat import completion, message, token_counts
from tests.support.server import Server
from tests.support.sse import read_events
from tests.support.tool_dialects import ADD, CALLS, CHAT, COPILOT_TOKEN, ENDS, WHOLE_TEXT, Call
from tests.support.upstream import Upstream, event_stream, http_response

Json = dict[str, Any]
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


def detail_chunks(*details: Json, **delta: object) -> bytes:
    """The events of a turn whose deltas have these reasoning details, and which calls the tool."""
    deltas: list[Json] = [{"role": "assistant", "content": None, **delta}]
    deltas += [{"reasoning_details": [detail]} for detail in details]
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": ADD, "arguments": "{}"}}
    deltas += [{"tool_calls": [call]}]
    chunks = [
        {"id": "c_1", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
    ]
    chunks += [{"id": "c_1", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}]
    return b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks) + chat.DONE


def test_what_the_model_said_in_arrays_goes_back_joined(toolbridge: Server, upstream: Upstream) -> None:
    thinks = {"type": "reasoning.text", "format": "f", "index": 0}
    events = detail_chunks(
        {**thinks, "text": "let "}, {**thinks, "text": "me \ud83d"}, {**thinks, "text": "\ude00", "signature": "s"},
        {"type": "reasoning.encrypted", "data": "gAA", "id": "e", "index": 1},
        audio={"id": "a", "data": "QQ"}, annotations=[],
    )  # fmt: skip
    upstream.enqueue(*event_stream(events, 7))
    CHAT.enqueue(upstream, True, ENDS)
    assert toolbridge.post(CHAT.path, CHAT.request(True))[2]
    sent = json.loads(upstream.requests[1].body)["messages"][1]
    assert sent["reasoning_details"] == [
        {**thinks, "text": "let me \U0001f600", "signature": "s"},
        {"type": "reasoning.encrypted", "data": "gAA", "id": "e", "index": 1},
    ]
    assert sent["audio"] == {"id": "a", "data": "QQ"}
    assert "annotations" not in sent


def content_answer(content: object, *calls: Call, streaming: bool) -> list[object]:
    """An answer whose content is a list, as Mistral's models write it, each part in a chunk of its own."""
    tool_calls = [
        {"index": 0, "id": call.id, "type": "function", "function": {"name": call.name, "arguments": "{}"}}
        for call in calls
    ]
    end = {"finish_reason": "tool_calls" if calls else "stop", "index": 0}
    calls_member = {"tool_calls": tool_calls} if calls else {}
    if not streaming:
        whole = {"role": "assistant", "content": content, **calls_member}
        return [
            http_response(200, json.dumps({"id": "c_1", "choices": [{**end, "message": whole}]}).encode())
        ]
    deltas = (
        [{"content": [part]} for part in content] if isinstance(content, list) else [{"content": content}]
    )
    chunks = [{"id": "c_1", "choices": [{"index": 0, "delta": delta}]} for delta in [*deltas, calls_member]]
    chunks += [{"id": "c_1", "choices": [{**end, "delta": {}}]}]
    return event_stream(
        b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks) + chat.DONE
    )


def test_content_in_lists_goes_back_and_is_shown_before_the_last_answer(
    toolbridge: Server, upstream: Upstream, streaming: bool
) -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    first = [thinking, {"type": "text", "text": "Let "}, {"type": "text", "text": "me."}]
    upstream.enqueue(*content_answer(first, Call("call_1", ADD), streaming=streaming))
    upstream.enqueue(*content_answer("It is 3.", streaming=streaming))
    _, received, whole, _ = toolbridge.post(CHAT.path, CHAT.request(streaming))
    assert whole
    joined = [thinking, {"type": "text", "text": "Let me."}]
    assert json.loads(upstream.requests[1].body)["messages"][1]["content"] == joined
    if not streaming:
        shown = json.loads(received)["choices"][0]["message"]["content"]
        assert shown == [thinking, {"type": "text", "text": "Let me.It is 3."}]
