"""Large events are split and read as small ones are."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aibridge_flask import large_bytes, sse

LINES = [
    "data: a",
    "data:b:c",
    "data",
    "event: x",
    "event:y",
    ": comment",
    "id: 7",
    "",
    "",
    "d\u00e9ta: w",
    " data: v",
]
ENDS = st.sampled_from(["\n", "\r\n", "\r"])
LISTS = st.lists(st.tuples(st.sampled_from(LINES), ENDS), max_size=12)
STREAMS = st.builds(
    lambda mark, lines: (mark + "".join(line + end for line, end in lines)).encode(),
    st.sampled_from(["", "\ufeff"]),
    LISTS,
)


def read(data: bytes) -> list[sse.Event]:
    return list(sse.with_data(sse.split(data)))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=STREAMS)
def test_a_large_event_is_read_as_a_small_one(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    small = read(data), sse.field(data, b"id", b"none")
    with monkeypatch.context() as patch:
        patch.setattr(sse, "LARGE_BYTES", 0)
        patch.setattr(large_bytes, "LARGE_BYTES", 0)
        patch.setattr(large_bytes, "STEP_BYTES", 3)
        assert (read(data), sse.field(data, b"id", b"none")) == small
        assert b"".join(sse.split(data)) == data


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=STREAMS, size=st.integers(1, 9))
def test_large_events_are_whole_in_any_pieces(
    data: bytes, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    with monkeypatch.context() as patch:
        patch.setattr(large_bytes, "LARGE_BYTES", 0)
        patch.setattr(large_bytes, "STEP_BYTES", 3)
        splitter = sse.EventSplitter()
        assert b"".join(map(splitter.feed, pieces)) + splitter.flush() == data
