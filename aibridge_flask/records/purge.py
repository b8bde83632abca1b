"""When what has expired is deleted, and by whom: a round an hour, by one process.

All of the database is looked through once a day, since a log of another host may bring what is old; in
between only what has just expired. The first round of a database says what it will delete, a day before.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Connection

from ..config.settings import RecordSettings
from . import database_clock
from .content import remove_traces
from .events import EPOCH
from .leases import Lease
from .retention import Expired, cutoffs, delete, measure
from .slices import Slices

_log = logging.getLogger("aibridge.records")
_NAME = "retention"
_INTERVAL, _DAY = timedelta(hours=1), timedelta(days=1)
_ANNOUNCED, _NEXT, _WHOLE, _REACHED, _TRACES = "announced_at", "next_at", "whole_at", "reached", "has_traces"


class Purge:
    """One round. Its state stands beside the lease, as times of the database."""

    def __init__(self, slices: Slices, settings: RecordSettings) -> None:
        self._slices, self._settings = slices, settings
        self._lease = Lease(_NAME)
        self._state: dict[str, Any] = {}

    def run_if_due(self) -> Expired:
        """Does a round if it is time for one. Raises SQLAlchemyError, Stopped, LeaseLost."""
        if not self._is_due(*self._slices.read(self._look)) or not self._slices.write(self._lease.take):
            return Expired()
        state, now = self._slices.read(self._look)
        deleted = Expired()
        if self._is_due(state, now):  # it may have been done meanwhile
            self._state = dict(state)
            deleted = self._round(now) if _ANNOUNCED in state else self._announce(now)
        self._slices.write(self._lease.release)
        return deleted

    def run(self) -> Expired:
        """Deletes all that has expired, now. Raises SQLAlchemyError, Stopped, LeaseLost, InProgress."""
        if not self._slices.write(self._lease.take):
            raise InProgress
        state, now = self._slices.read(self._look)
        self._state = {**state, _ANNOUNCED: now.isoformat()}
        self._state.pop(_WHOLE, None)
        deleted = self._round(now)
        self._slices.write(self._lease.release)
        return deleted

    def measure(self) -> Expired:
        """Counts what `run` would delete. Raises SQLAlchemyError, Stopped."""
        _, now = self._slices.read(self._look)
        return measure(self._slices, cutoffs(self._settings, now))

    def _look(self, connection: Connection) -> tuple[Mapping[str, Any], datetime]:
        return self._lease.state(connection), database_clock.read(connection)

    def _is_due(self, state: Mapping[str, Any], now: datetime) -> bool:
        is_wanted = self._settings.retention_days or self._settings.usage_retention_days
        return bool(is_wanted) and _time(state, _NEXT) <= now

    def _announce(self, now: datetime) -> Expired:
        """Says what the first round will delete."""
        due = cutoffs(self._settings, now)
        found = measure(self._slices, due)
        if found.total:
            self._state[_ANNOUNCED] = now.isoformat()
            _log.warning(
                "from %s on, by records.retention_days and usage_retention_days: %d interceptions from before"
                " %s lose their content, %d from before %s are deleted; the oldest is from %s",
                _shown(now + _DAY), found.contents, _shown(due.content), found.interceptions,
                _shown(due.usage), *map(_shown, found.oldest),
            )  # fmt: skip
        self._save({_NEXT: (now + (_DAY if found.total else _INTERVAL)).isoformat()})
        return Expired()

    def _round(self, now: datetime) -> Expired:
        due = cutoffs(self._settings, now)
        is_whole = _time(self._state, _WHOLE) + _DAY <= now
        deleted = delete(self._slices, due, self._mark, EPOCH if is_whole else _time(self._state, _REACHED))
        if deleted.total:
            _log.info(
                "expired: the content of %d interceptions, and %d whole ones, were deleted",
                deleted.contents, deleted.interceptions,
            )  # fmt: skip
        if self._state.get(_TRACES) and remove_traces(self._slices, self._lease.renew):
            self._state[_TRACES] = False
        times = {_NEXT: now + _INTERVAL, _REACHED: due.content, **({_WHOLE: now} if is_whole else {})}
        self._save({name: time.isoformat() for name, time in times.items()})
        return deleted

    def _mark(self, connection: Connection) -> None:
        """Renews the lease; notes that SQLite's file will hold traces of what is deleted."""
        self._lease.renew(connection)
        if not self._state.get(_TRACES):
            self._state[_TRACES] = True
            self._lease.save(connection, self._state)

    def _save(self, changes: Mapping[str, Any]) -> None:
        self._state |= changes
        self._slices.write(partial(self._lease.save, state=self._state))


class InProgress(Exception):
    """Another process deletes at this time."""


def _time(state: Mapping[str, Any], name: str) -> datetime:
    return datetime.fromisoformat(state[name]) if state.get(name) else EPOCH


def _shown(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
