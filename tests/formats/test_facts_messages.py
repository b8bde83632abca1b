"""What is read of a message of Anthropic's API: tool calls, thoughts, tokens and failures."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aibridge_flask.formats import MESSAGES
from aibridge_flask.model import RequestFacts, Turn, Usage
from tests.support.claude import MODEL, message, stream, text, use, whole

BOTH = pytest.mark.parametrize("streaming", [False, True])
Json = dict[str, Any]


def read(data: bytes, streaming: bool = True) -> Turn:
    fold = MESSAGES.fold(RequestFacts(streaming=True)) if streaming else MESSAGES.blocking_fold()
    assert fold.feed(data) + fold.end() == data
    return fold.turn()


def event(type: str, **members: object) -> bytes:
    return f"event: {type}\ndata: {json.dumps({'type': type, **members})}\n\n".encode()


def read_usage(streaming: bool, first: Json, last: Json) -> Turn:
    """Reads a message with a usage. A stream tells the first one at its start, the last one at its end."""
    if not streaming:
        return read(whole({**message("m", text("Hi")), "usage": {**first, **last}}), streaming=False)
    started = event("message_start", message={**message("m"), "usage": first})
    return read(started + event("message_delta", delta={}, usage=last) + event("message_stop"))


def iteration(type: str, input: int, output: int, **members: object) -> Json:
    return {"type": type, "input_tokens": input, "output_tokens": output, **members}


COMPACTION, ADVICE = (
    iteration("compaction", 180000, 3500),
    iteration("advisor_message", 900, 80, model="wise"),
)
TOP: Json = {"input_tokens": 23000, "output_tokens": 1000}


@BOTH
@pytest.mark.parametrize(
    ("iterations", "own", "inner"),
    [
        (
            [COMPACTION, iteration("message", 23000, 1000)],
            Usage(23000, 1000),
            [(MODEL, Usage(180000, 3500))],
        ),
        (
            [iteration("message", 23000, 400), ADVICE, iteration("message", 24000, 600)],
            Usage(47000, 1000),
            [("wise", Usage(900, 80))],
        ),
        (
            [COMPACTION, ADVICE, {**ADVICE, "cache_read_input_tokens": 7}],
            Usage(23000, 1000),
            [(MODEL, Usage(180000, 3500)), ("wise", Usage(900, 80)), ("wise", Usage(900, 80, 7))],
        ),
        ([iteration("fallback_message", 23000, 0, model="other")], Usage(23000, 1000), []),
        ([None, "x", {}, {"type": 1}], Usage(23000, 1000), []),
        ([], Usage(23000, 1000), []),
        (None, Usage(23000, 1000), []),
    ],
)
def test_what_served_inside_a_message_is_counted_beside_it(
    streaming: bool, iterations: object, own: Usage, inner: list[tuple[str, Usage]]
) -> None:
    turn = read_usage(streaming, {**TOP, "output_tokens": 1}, {**TOP, "iterations": iterations})
    assert turn.usage == own
    assert list(turn.inner_usages) == inner


def test_a_later_nothing_does_not_replace_a_count() -> None:
    first = {**TOP, "cache_read_input_tokens": 9, "cache_creation": {"ephemeral_1h_input_tokens": 4}}
    last = {
        "input_tokens": 0,
        "output_tokens": 1100,
        "cache_read_input_tokens": None,
        "cache_creation": {"ephemeral_1h_input_tokens": 0, "ephemeral_5m_input_tokens": 3},
    }
    metadata = {"cache_ephemeral_1h_input": 4, "cache_ephemeral_5m_input": 3}
    assert read_usage(True, first, last).usage == Usage(23000, 1100, 9, 0, metadata)


@pytest.mark.parametrize("kind", ["message_delta", "message_stop"])
def test_a_usage_may_stand_only_at_the_end(kind: str) -> None:
    started = event("message_start", message={"id": "m", "model": MODEL})
    assert read(started + event(kind, usage=TOP)).usage == Usage(23000, 1000)


def test_a_stream_and_a_whole_message_say_the_same() -> None:
    told = message("m", text("Hi"), server_tool_use={"web_search_requests": 2})
    assert read(stream(told)) == read(whole(told), streaming=False)


def block_events(block: Json, *deltas: Json) -> bytes:
    start = event("content_block_start", index=0, content_block=block)
    told = [event("content_block_delta", index=0, delta=delta) for delta in deltas]
    return start + b"".join(told) + event("content_block_stop", index=0)


@pytest.mark.parametrize("halves", [("a\ud83d", "\ude00z"), ("a\ud83d", "", "\ude00z"), ("a", "😀", "z")])
def test_a_character_may_be_cut_over_two_deltas(halves: tuple[str, ...]) -> None:
    """Each has half of a surrogate pair."""
    call = {"type": "tool_use", "id": "t", "name": "say", "input": {}}
    pieces = [{"type": "input_json_delta", "partial_json": half} for half in ('{"w":"', *halves, '"}')]
    thoughts = [{"type": "thinking_delta", "thinking": half} for half in halves]
    turn = read(block_events(call, *pieces) + block_events({"type": "thinking", "thinking": ""}, *thoughts))
    assert [json.loads(call.input) for call in turn.tool_calls] == [{"w": "a😀z"}]
    assert [thought.content for thought in turn.thoughts] == ["a😀z"]


def test_half_a_character_stays_half() -> None:
    thought = block_events({"type": "thinking"}, {"type": "thinking_delta", "thinking": "a\ud83d"})
    assert [thought.content for thought in read(thought).thoughts] == ["a\ud83d"]


@BOTH
@pytest.mark.parametrize("stop", ["tool_use", "end_turn", "max_tokens"])
def test_a_call_counts_whatever_the_stop_reason_is(streaming: bool, stop: str) -> None:
    told = message("m", use("t", "Read", path="a"), stop=stop)
    turn = read(stream(told) if streaming else whole(told), streaming)
    assert [(call.id, json.loads(call.input)) for call in turn.tool_calls] == [("t", {"path": "a"})]
