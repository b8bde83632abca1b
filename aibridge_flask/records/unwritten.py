"""The events that a worker's log could not take: its disk is full, or fails."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from ..waiting import unpatched
from .events import Event
from .log import RecordLog

AGAIN_SECONDS = 0.05  # after which a log that could not be written is tried again


class UnwrittenEvents:
    """Keeps them in memory, in their order, until they are appended to the log, or else applied."""

    def __init__(self, log: RecordLog) -> None:
        self._log = log
        self._waiting: list[Sequence[Event]] = []
        self._lock = unpatched("_thread", "allocate_lock")()

    def __len__(self) -> int:
        return sum(map(len, self._waiting))

    def keep(self, events: Sequence[Event]) -> None:
        self._waiting.append(events)

    def append(self) -> bool:
        """Appends them to the log; returns whether none is left."""
        if self._waiting:
            with contextlib.suppress(OSError):
                self.hand_over(self._log.append)
        return not self._waiting

    def hand_over(self, take: Callable[[Sequence[Event]], object]) -> None:
        """Calls `take` with the events of each append, which are forgotten then. Raises what it raises."""
        with self._lock:
            while self._waiting:
                take(self._waiting[0])
                self._waiting.pop(0)
