"""Who waits until a log is applied up to a position."""

from __future__ import annotations

import contextlib
from collections import deque

from ..waiting import OneShotEvent, set_events


class Waiters:
    """Any thread adds and removes; one thread, the applier's, sets the events."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, OneShotEvent]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, position: int, applied: OneShotEvent) -> None:
        """`applied` is set once the log is applied up to `position`."""
        self._waiting.append((position, applied))

    def remove(self, position: int, applied: OneShotEvent) -> None:
        """Forgets what `add` was called with."""
        with contextlib.suppress(ValueError):
            self._waiting.remove((position, applied))

    def set_up_to(self, position: int) -> None:
        """Sets the events of those who wait for this position or an earlier one."""
        due = [waiter for waiter in tuple(self._waiting) if waiter[0] <= position]
        for waiter in due:
            self.remove(*waiter)
        if due:
            set_events([applied for _, applied in due])
