"""Counts events that were accepted but could not be written. The count should stay 0."""

from __future__ import annotations

from ..hooks import Hooks, RecordsLost
from ..waiting import call_from_thread


class LossCounter:
    """Counts in the writer's thread; emits `RecordsLost` in the thread or hub that serves requests."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._count = self._emitted = 0
        self._emit_soon = call_from_thread(self.emit)

    def add(self, count: int) -> None:
        if count:
            self._count += count
            self._emit_soon()

    def emit(self) -> None:
        new = self._count - self._emitted
        if new:
            self._emitted += new
            self._hooks.emit(RecordsLost(new))
