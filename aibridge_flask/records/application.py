"""Applies frames of a log to the database. What a row itself is at fault for is set aside, tried alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from time import monotonic, thread_time

from .frames import Frame
from .rejects import Rejects
from .store import DatabaseBusy, RowsRejected, Store

_CPU_SECONDS = 0.02
_MAX_SECONDS = 1.0
_LEAST_FRAMES, _FIRST_FRAMES, _MAX_FRAMES = 20, 50, 500


class SliceSize:
    """How many frames fit a slice, as the slices before have shown.

    Requests wait while a slice computes: for 20 ms at most. They do not while it waits for the database, so a
    distant one gets slices that are worth their round trips. A slice costs something even if it is empty: on
    a busy machine it stays large enough to be worth that, else the log would grow faster than it is applied.
    """

    def __init__(self) -> None:
        self.frames = _FIRST_FRAMES

    @contextlib.contextmanager
    def measured(self, count: int) -> Iterator[None]:
        """Applies a slice of `count` frames inside, and adapts to the time that it took."""
        started_at, computed = monotonic(), thread_time()
        try:
            yield
        except DatabaseBusy:
            raise  # somebody else's lock says nothing of the slice
        except BaseException:
            self.frames = max(1, self.frames // 2)  # it may have been too much for a deadline
            raise
        self._adapt(count, thread_time() - computed, monotonic() - started_at)

    def _adapt(self, count: int, computed: float, seconds: float) -> None:
        if seconds > _MAX_SECONDS:
            self.frames = max(1, self.frames // 2)
        elif computed > _CPU_SECONDS:
            self.frames = max(min(_LEAST_FRAMES, self.frames), self.frames // 2)
        elif count >= self.frames and computed < _CPU_SECONDS / 2 and seconds < _MAX_SECONDS / 2:
            self.frames = min(2 * self.frames, _MAX_FRAMES)


def apply_frames(store: Store, rejects: Rejects, log_id: str, position: int, frames: Sequence[Frame]) -> int:
    """Applies frames; returns the position after them. What the database rejects is set aside, tried alone.

    Raises DatabaseDown, PositionChanged.
    """
    end = frames[-1].end
    events = [event for frame in frames for event in frame.events]
    try:
        store.apply(log_id, events, position, end)
    except RowsRejected as error:
        if len(frames) > 1:
            middle = len(frames) // 2
            position = apply_frames(store, rejects, log_id, position, frames[:middle])
            return apply_frames(store, rejects, log_id, position, frames[middle:])
        if len(events) > 1:
            _apply_separately(store, rejects, log_id, position, frames[0])
        else:
            rejects.set_aside(events[0], str(error))
        store.apply(log_id, (), position, end)
    for unknown in (value for frame in frames for value in frame.unknown):
        rejects.set_unknown_aside(unknown)
    return end


def _apply_separately(store: Store, rejects: Rejects, log_id: str, position: int, frame: Frame) -> None:
    for event in frame.events:
        try:
            store.apply(log_id, (event,), position, position)
        except RowsRejected as error:
            rejects.set_aside(event, str(error))
