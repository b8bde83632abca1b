"""The only thread of a process that writes records: to the database, or to the spool while that is away.

Records are written in their order: while the spool is not empty, everything goes to the spool.
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
_BATCH_SIZE = 1000
_RETRY_SECONDS = 0.5
_RENEW_SECONDS = 10.0
_DEAD_WORKERS_SECONDS = 30.0


@dataclass(slots=True)
class PendingWrite:
    """Events that are written together. `written` is set once they are, if somebody waits for it.

    If they cannot be written anywhere, entries with `must_keep` are retried, others are dropped.
    """

    events: tuple[Event, ...]
    written: OneShotEvent | None = None
    must_keep: bool = True
    failed: bool = False


class Writer:
    """Runs until it takes None from the queue."""

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
            self._retry: _RETRY_SECONDS,
            self._registry.renew: _RENEW_SECONDS,
            self._registry.close_dead_workers: _DEAD_WORKERS_SECONDS,
        }
        self.healthy = True
        self.away = False

    def run(self) -> None:
        ended = False
        with fork_lock():
            prices.load()
            self._run_periodic()
        while not ended:
            batch, ended = self._collect()
            with fork_lock():
                self._commit_safely(batch)
                self._run_periodic()
        self._finish()

    def _commit_safely(self, batch: list[PendingWrite]) -> None:
        """The thread survives any error, and nobody waits without end."""
        try:
            self._commit(batch)
        except Exception:  # noqa: BLE001 - logged on the next line
            _log.exception("records could not be written: %d", len(batch))
            self._losses.add(_count_must_keep(batch))
            _notify_failure(batch)

    def _collect(self) -> tuple[list[PendingWrite], bool]:
        """Returns all that has arrived; waits for the first entry, or until a periodic task is due.

        The flag is true once the recorder was closed.
        """
        batch: list[PendingWrite] = []
        has_unwritten = self._kept or not (self._spool.empty and self.healthy)
        try:
            entries = self._queue.get(timeout=_RETRY_SECONDS if has_unwritten else _RENEW_SECONDS)
            while entries is not None:
                batch += entries
                if len(batch) >= _BATCH_SIZE:
                    return batch, False
                entries = self._queue.get_nowait()
        except Empty:
            return batch, False
        return batch, True

    def _commit(self, batch: list[PendingWrite]) -> None:
        if batch and not (self._spool.empty and self._write(batch)):
            self._spool_batch(batch)

    def _write(self, batch: list[PendingWrite]) -> bool:
        """Writes to the database. Returns false if it is away."""
        try:
            self._store.write(_events(batch))
        except DatabaseDown as error:
            if not self.away:
                _log.error("the database takes no records: %s", error)
            self.away = True
            return False
        except RowsRejected:
            return self._write_separately(batch)
        self.healthy, self.away = True, False
        _notify(batch)
        return True

    def _write_separately(self, batch: list[PendingWrite]) -> bool:
        """Writes entry by entry, so that an invalid one does not take the others with it."""
        lost = 0
        try:
            for entry in batch:
                rejected = self._store.write_each(list(entry.events))
                entry.failed = rejected > 0
                lost += rejected if entry.must_keep else 0
        except DatabaseDown:
            return False
        self._losses.add(lost)
        _notify(batch)
        return True

    def _spool_batch(self, batch: list[PendingWrite]) -> None:
        """Writes to the spool. If that fails too, the waiting requests fail."""
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
            _notify_failure(batch)
        _notify(batch)

    def _run_periodic(self) -> None:
        """Runs the periodic tasks that are due."""
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
        """Writes the spool and the kept entries to the database. Raises DatabaseDown, OSError."""
        if not self._spool.empty:
            self._spool.replay(self._store.write_each)
            _log.warning("the database takes records again: the spool is written")
            self.away = False
        if self._kept:
            batch, self._kept = self._kept, []
            self._commit(batch)
        if not self.healthy:
            self._probe()

    def _probe(self) -> None:
        """Tries whether records can be written again: a server that is not ready gets no requests to show it.

        Raises DatabaseDown, OSError.
        """
        try:
            self._registry.renew()
        except DatabaseDown:
            if self._refuses:
                raise
            self._spool.probe()
        self.healthy = True

    def _finish(self) -> None:
        self._due[self._retry] = 0.0
        self._run_periodic()
        if self._kept:
            _log.error("records could be written nowhere: %d", len(self._kept))
            self._losses.add(_count_must_keep(self._kept))
        is_drained = self._spool.empty
        self._spool.close()
        try:
            self._registry.deregister(is_drained)
        except DatabaseDown:
            _log.debug("the database is away at the end")
        self._store.close()


def _events(batch: Iterable[PendingWrite]) -> list[Event]:
    return [event for entry in batch for event in entry.events]


def _count_must_keep(batch: Iterable[PendingWrite]) -> int:
    """Counts the events that are lost with these entries. Requests that wait for others fail instead."""
    return sum(len(entry.events) for entry in batch if entry.must_keep)


def _notify_failure(batch: Sequence[PendingWrite]) -> None:
    for entry in batch:
        entry.failed = True
    _notify(batch)


def _notify(batch: Sequence[PendingWrite]) -> None:
    set_events([entry.written for entry in batch if entry.written is not None])
    for entry in batch:
        entry.written = None
