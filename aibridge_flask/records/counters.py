"""Counts records that were set aside, lost or deleted by age, or have no price, in any thread, and emits the
counts where requests are served.
"""

from __future__ import annotations

from ..hooks import (
    Hooks,
    InterceptionsExpired,
    InterceptionsUnpriced,
    RecordsLost,
    RecordsRejected,
    RecordsUnconfirmed,
)
from ..waiting import call_from_thread

_EVENTS = (RecordsLost, RecordsRejected, RecordsUnconfirmed, InterceptionsUnpriced, InterceptionsExpired)


class Counters:
    """`RecordsLost` should stay 0."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._counts: dict[type, int] = dict.fromkeys(_EVENTS, 0)
        self._emitted = dict(self._counts)
        self._emit_soon = call_from_thread(self.emit)

    def add_lost(self, count: int) -> None:
        self._add(RecordsLost, count)

    def add_rejected(self, count: int) -> None:
        self._add(RecordsRejected, count)

    def add_unconfirmed(self) -> None:
        self._add(RecordsUnconfirmed, 1)

    def add_unpriced(self, count: int) -> None:
        self._add(InterceptionsUnpriced, count)

    def add_expired(self, count: int) -> None:
        self._add(InterceptionsExpired, count)

    def emit(self) -> None:
        for event_type, count in self._counts.items():
            new = count - self._emitted[event_type]
            if new:
                self._emitted[event_type] += new
                self._hooks.emit(event_type(new))

    def _add(self, event_type: type, count: int) -> None:
        self._counts[event_type] += count
        self._emit_soon()
