"""Folds for requests with offered tools. They make one response for the client of all the upstream responses
that a request takes, and hide from the client what it must not see.

A `Splicer` belongs to a format and decides what the client sees of a response. A `FactReader` reads the facts
of each response, as in a tap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from .. import sse
from ..errors import BodyTooLarge
from ..model import ToolCall, ToolResult, Turn
from . import body, estimates
from .estimates import SAMPLE_BYTES
from .tap import BODY_LIMIT, FactReader, read_blocking_body, read_events

CallResults = Sequence[tuple[ToolCall, ToolResult]]


class Splicer(Protocol):
    """What one format contributes to a splice.

    `awaits_tools` is as in `Fold`. `new_reader` returns the reader of the next response. `filter_events` gets
    whole events, after the reader has read them; `filter_body` gets a JSON response. Both return what the
    client sees of it now. `flush` returns the bytes still buffered when the response ends. `follow_up`
    returns the body of the next request.
    """

    @property
    def awaits_tools(self) -> bool: ...
    def new_reader(self) -> FactReader: ...
    def filter_events(self, events: bytes) -> bytes: ...
    def flush(self) -> bytes: ...
    def filter_body(self, data: bytes) -> bytes: ...
    def follow_up(self, results: CallResults) -> bytes: ...


def sum_counts(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Adds the counts of two responses. Of a value that is not a number the later one wins.

    >>> sum_counts({"n": 1, "of": {"x": 1}, "tier": "a"}, {"n": 2, "of": {"x": 0.5, "y": 3}, "tier": "b"})
    {'n': 3, 'of': {'x': 1.5, 'y': 3}, 'tier': 'b'}
    """
    total = dict(earlier)
    for key, value in later.items():
        if isinstance(value, Mapping):
            total[key] = sum_counts(body.get_object(earlier, key), value)
        elif _is_number(value) and _is_number(earlier.get(key)):
            total[key] = earlier[key] + value
        elif value is not None or key not in total:
            total[key] = value
    return total


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class _Splice:
    exact = False
    at_event_boundary = True
    buffered = 0

    def __init__(self, splicer: Splicer) -> None:
        self._splicer = splicer
        self._start_response()

    def _start_response(self) -> None:
        self._reader = self._splicer.new_reader()
        self._is_unreadable = False

    @property
    def awaits_tools(self) -> bool:
        return self._splicer.awaits_tools and not self._is_unreadable

    @property
    def complete(self) -> bool:
        return self._reader.complete and not self.awaits_tools

    @property
    def changed(self) -> bool:
        return self._reader.changed

    def turn(self) -> Turn:
        return self._reader.turn()

    def estimated_output(self) -> int:
        return 0

    def follow_up(self, results: CallResults) -> bytes:
        body = self._splicer.follow_up(results)
        self._start_response()
        return body


class StreamSplice(_Splice):
    """Outputs whole events. Events that cannot be read are passed on; that response is then the last one."""

    def _start_response(self) -> None:
        super()._start_response()
        self._splitter = sse.EventSplitter()
        self._size, self._sample = 0, b""

    @property
    def buffered(self) -> int:  # type: ignore[override]
        return self._splitter.buffered

    def feed(self, piece: bytes) -> bytes:
        events = self._splitter.feed(piece)
        return self._filter(events) if events else b""

    def end(self) -> bytes:
        events = self._splitter.flush()
        out = self._filter(events) if events else b""
        self._reader.end()
        return out + self._splicer.flush()

    def estimated_output(self) -> int:
        return estimates.output_tokens(self._size, self._sample)

    def _filter(self, events: bytes) -> bytes:
        self._size, self._sample = self._size + len(events), events[-SAMPLE_BYTES:]
        if self._is_unreadable:
            return events
        try:
            if self._size > BODY_LIMIT:
                raise BodyTooLarge(BODY_LIMIT)
            read_events(self._reader, events)
            return self._splicer.filter_events(events)
        except Exception:  # noqa: BLE001 - a reading error must not stop the stream
            self._is_unreadable = True
            return self._splicer.flush() + events


class BlockingSplice(_Splice):
    """Outputs a JSON response once all of it has arrived."""

    def _start_response(self) -> None:
        super()._start_response()
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> bytes:
        self._size += len(piece)
        self._parts.append(piece)
        return self._pop_buffered() if self._size > BODY_LIMIT else b""

    def end(self) -> bytes:
        data = self._pop_buffered()
        if not data or self._size > BODY_LIMIT:
            return data
        try:
            read_blocking_body(self._reader, data)
            return self._splicer.filter_body(data)
        except Exception:  # noqa: BLE001 - a reading error must not stop the response
            self._is_unreadable = self._reader.complete = True
            return data

    def _pop_buffered(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data
