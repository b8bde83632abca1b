"""The one thread of a process that writes records: to the database, or to the spool while that
is away. What came first is written first: while the spool holds anything, everything goes there.
"""

from __future__ import annotations

import logging
from _queue import Empty, SimpleQueue  # the C type: gevent patches only the module `queue`
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from time import monotonic

from ..waiting import OneShotEvent, fork_lock, set_events
from . import prices
from .events import Event
from .losses import LossCounter
from .spool import Spool
from .store import DatabaseDown, RowsRejected, Store
from .workers import WorkerRegistry

_log = logging.getLogger("aibridge.records")
_BATCH = 1000
_RETRY = 0.5
_RENEW = 10.0
_BURY = 30.0


@dataclass(slots=True)
class PendingWrite:
    """Events that belong together; a gate where somebody waits for them to be written. What is
    `dear` is kept for the next try when it can be written nowhere, the rest of such is forgotten."""

    events: tuple[Event, ...]
    one_shot_event: OneShotEvent | None = None
    must_keep: bool = True
    failed: bool = False


class Writer:
    """Runs until None comes through the queue."""

    def __init__(
        self,
        queue: SimpleQueue[list[PendingWrite] | None],
        store: Store,
        spool: Spool,
        registry: WorkerRegistry,
        losses: LossCounter,
        refuses: bool,
    ) -> None:
        self._queue, self._store, self._spool, self._registry = queue, store, spool, registry
        self._losses = losses
        self._refuses = refuses
        self._kept: list[PendingWrite] = []
        self._due = {self._retry: 0.0, self._registry.renew: 0.0, self._registry.close_dead_workers: 0.0}
        self._pauses = {
            self._retry: _RETRY,
            self._registry.renew: _RENEW,
            self._registry.close_dead_workers: _BURY,
        }
        self.healthy = True
        self.away = False

    def run(self) -> None:
        ended = False
        with fork_lock():
            prices.load()
            self._beat()
        while not ended:
            batch, ended = self._collect()
            with fork_lock():
                self._commit_safely(batch)
                self._beat()
        self._finish()

    def _commit_safely(self, batch: list[PendingWrite]) -> None:
        """Whatever happens, the thread lives on and nobody waits for ever."""
        try:
            self._commit(batch)
        except Exception:  # noqa: BLE001 - told just below
            _log.exception("records could not be written: %d", len(batch))
            self._losses.add(_dear(batch))
            _fail(batch)

    def _collect(self) -> tuple[list[PendingWrite], bool]:
        """All that has come; waits for the first, or for the next thing to do. The flag tells
        that the recorder was closed."""
        batch: list[PendingWrite] = []
        waits = self._kept or not (self._spool.empty and self.healthy)
        try:
            entries = self._queue.get(timeout=_RETRY if waits else _RENEW)
            while entries is not None:
                batch += entries
                if len(batch) >= _BATCH:
                    return batch, False
                entries = self._queue.get_nowait()
        except Empty:
            return batch, False
        return batch, True

    def _commit(self, batch: list[PendingWrite]) -> None:
        if batch and not (self._spool.empty and self._write(batch)):
            self._put_by(batch)

    def _write(self, batch: list[PendingWrite]) -> bool:
        """To the database; false where that is away."""
        try:
            self._store.write(_events(batch))
        except DatabaseDown as error:
            if not self.away:
                _log.error("the database takes no records: %s", error)
            self.away = True
            return False
        except RowsRejected:
            return self._write_apart(batch)
        self.healthy, self.away = True, False
        _open(batch)
        return True

    def _write_apart(self, batch: list[PendingWrite]) -> bool:
        """One bad entry may not take its neighbours with it."""
        lost = 0
        try:
            for entry in batch:
                bad = self._store.write_each(list(entry.events))
                entry.failed = bad > 0
                lost += bad if entry.must_keep else 0
        except DatabaseDown:
            return False
        self._losses.add(lost)
        _open(batch)
        return True

    def _put_by(self, batch: list[PendingWrite]) -> None:
        """To the spool; where that cannot be, those who wait are told."""
        try:
            if self._refuses:
                raise OSError("settings")
            self._spool.append(_events(batch))
            self.healthy = True
        except OSError as error:
            if self.healthy and not self._refuses:
                _log.error("the spool takes no records: %s", error.strerror)
            self.healthy = False
            self._kept += [PendingWrite(entry.events) for entry in batch if entry.must_keep]
            _fail(batch)
        _open(batch)

    def _beat(self) -> None:
        """What is to be done from time to time, as far as the database is there."""
        for task, due in self._due.items():
            if monotonic() < due:
                continue
            try:
                task()
            except (DatabaseDown, OSError) as error:
                _log.debug("put off: %s", error)
            except Exception:  # noqa: BLE001 - the thread lives on
                _log.exception("a periodic task of the records failed")
            self._due[task] = monotonic() + self._pauses[task]

    def _retry(self) -> None:
        """Brings what waits to the database. Raises StoreDown, OSError."""
        if not self._spool.empty:
            self._spool.replay(self._store.write_each)
            _log.warning("the database takes records again: the spool is written")
            self.away = False
        if self._kept:
            batch, self._kept = self._kept, []
            self._commit(batch)
        if not self.healthy:
            self._look_again()

    def _look_again(self) -> None:
        """Nobody sends requests to a server that is not ready, so it finds out by itself whether
        records are taken again. Raises StoreDown, OSError."""
        try:
            self._registry.renew()
        except DatabaseDown:
            if self._refuses:
                raise
            self._spool.probe()
        self.healthy = True

    def _finish(self) -> None:
        self._due[self._retry] = 0.0
        self._beat()
        if self._kept:
            _log.error("records could be written nowhere: %d", len(self._kept))
            self._losses.add(_dear(self._kept))
        clean = self._spool.empty
        self._spool.close()
        try:
            self._registry.deregister(clean)
        except DatabaseDown:
            _log.debug("the database is away at the end")
        self._store.close()


def _events(batch: Iterable[PendingWrite]) -> list[Event]:
    return [event for entry in batch for event in entry.events]


def _dear(batch: Iterable[PendingWrite]) -> int:
    """Events that are lost if these are; of the others the client hears, and asks again."""
    return sum(len(entry.events) for entry in batch if entry.must_keep)


def _fail(batch: Sequence[PendingWrite]) -> None:
    for entry in batch:
        entry.failed = True
    _open(batch)


def _open(batch: Sequence[PendingWrite]) -> None:
    set_events([entry.one_shot_event for entry in batch if entry.one_shot_event is not None])
    for entry in batch:
        entry.one_shot_event = None
