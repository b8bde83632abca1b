"""What is read of a message of Anthropic's API: tool calls, thoughts, tokens and failures."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aibridge_flask.formats import MESSAGES
from aibridge_flask.model import RequestFacts, Turn, Usage
from tests.support.claude import MODEL, message, stream, text, whole

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
