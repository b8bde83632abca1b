"""Applies frames of a log to the database. What a row itself is at fault for is set aside, tried alone."""

from __future__ import annotations

from collections.abc import Sequence

from .frames import Frame
from .rejects import Rejects
from .store import RowsRejected, Store

_SLICE_SECONDS = 0.02
_MAX_FRAMES = 500


class SliceSize:
    """How many frames fit a slice of 20 ms, as the slices before have shown."""

    def __init__(self) -> None:
        self.frames = 50

    def adapt(self, count: int, seconds: float) -> None:
        """Takes the number of frames of a slice and the time that they took."""
        if count >= self.frames and seconds < _SLICE_SECONDS / 2:
            self.frames = min(2 * self.frames, _MAX_FRAMES)
        elif seconds > _SLICE_SECONDS:
            self.frames = max(1, self.frames // 2)


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
