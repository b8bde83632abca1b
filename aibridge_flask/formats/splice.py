"""Folds where tools were offered: they make one answer of all those that a request takes, and keep
from the client what it must not see.

A `Splicer` belongs to a format, and knows what the client sees of an answer; a `Reading` tells
the facts of each, as in a tap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from .. import sse
from ..errors import BodyTooLarge
from ..model import ToolCall, ToolResult, Turn
from . import body
from .tap import BODY_LIMIT, FactReader, read_events, read_whole

Results = Sequence[tuple[ToolCall, ToolResult]]


class Splicer(Protocol):
    """`wants` is as in `Fold`. `reading` is that of the next answer. `run` takes whole events, which the
    reading has just read, `whole` a JSON answer; both give what the client sees of it now, and `rest` what
    of it was still held back when its answer ended. `follow_up` gives the next request's body."""

    @property
    def awaits_tools(self) -> bool: ...
    def new_reader(self) -> FactReader: ...
    def filter_events(self, run: bytes) -> bytes: ...
    def flush(self) -> bytes: ...
    def filter_body(self, data: bytes) -> bytes: ...
    def follow_up(self, results: Results) -> bytes: ...


def sum_counts(one: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Counts of two answers, summed; of what is no count the later one holds.

    >>> added({"n": 1, "of": {"x": 1}, "tier": "a"}, {"n": 2, "of": {"x": 0.5, "y": 3}, "tier": "b"})
    {'n': 3, 'of': {'x': 1.5, 'y': 3}, 'tier': 'b'}
    """
    total = dict(one)
    for key, value in more.items():
        if isinstance(value, Mapping):
            total[key] = sum_counts(body.get_object(one, key), value)
        elif _is_number(value) and _is_number(one.get(key)):
            total[key] = one[key] + value
        elif value is not None or key not in total:
            total[key] = value
    return total


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class _Splice:
    exact = False
    at_event_boundary = True

    def __init__(self, splicer: Splicer) -> None:
        self._splicer = splicer
        self._begin()

    def _begin(self) -> None:
        self._reading = self._splicer.new_reader()
        self._lost = False

    @property
    def awaits_tools(self) -> bool:
        return self._splicer.awaits_tools and not self._lost

    @property
    def complete(self) -> bool:
        return self._reading.complete and not self.awaits_tools

    @property
    def changed(self) -> bool:
        return self._reading.changed

    def turn(self) -> Turn:
        return self._reading.turn()

    def follow_up(self, results: Results) -> bytes:
        body = self._splicer.follow_up(results)
        self._begin()
        return body


class StreamSplice(_Splice):
    """Gives out whole events. What cannot be made out passes, and the answer is then the last."""

    def _begin(self) -> None:
        super()._begin()
        self._scanner = sse.EventSplitter()
        self._size = 0

    def feed(self, piece: bytes) -> bytes:
        run = self._scanner.feed(piece)
        return self._pass(run) if run else b""

    def end(self) -> bytes:
        run = self._scanner.flush()
        out = self._pass(run) if run else b""
        self._reading.end()
        return out + self._splicer.flush()

    def _pass(self, run: bytes) -> bytes:
        self._size += len(run)
        if self._lost:
            return run
        try:
            if self._size > BODY_LIMIT:
                raise BodyTooLarge(BODY_LIMIT)
            read_events(self._reading, run)
            return self._splicer.filter_events(run)
        except Exception:  # noqa: BLE001 - reading is never a gate
            self._lost = True
            return self._splicer.flush() + run


class BlockingSplice(_Splice):
    """Gives out a JSON answer when it is whole."""

    def _begin(self) -> None:
        super()._begin()
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> bytes:
        self._size += len(piece)
        self._parts.append(piece)
        return self._given() if self._size > BODY_LIMIT else b""

    def end(self) -> bytes:
        data = self._given()
        if not data or self._size > BODY_LIMIT:
            return data
        try:
            read_whole(self._reading, data)
            return self._splicer.filter_body(data)
        except Exception:  # noqa: BLE001 - reading is never a gate
            self._lost = self._reading.complete = True
            return data

    def _given(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data
