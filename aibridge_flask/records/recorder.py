"""Group commit: events of all requests go through one queue to one real thread, which writes
whatever has come meanwhile in one transaction. Nobody else waits for the database.
"""

from __future__ import annotations

import atexit
import logging
import os
from _queue import Empty, SimpleQueue  # the C type: gevent patches only the module `queue`
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy import Engine

from ..config.settings import Price
from ..errors import RecordingFailed
from ..model import EMPTY, new_id
from ..waiting import Gate, gate, start_thread
from . import prices
from .events import Event
from .store import Store, StoreDown

_log = logging.getLogger("aibridge.records")
_BATCH = 1000
_QUEUE_LIMIT = 100_000
_WAIT = 30.0
_RETRY_PAUSE = 0.25
_DRAIN = 10.0


@dataclass(slots=True)
class _Entry:
    """Events that belong together; a gate where somebody waits for them to be written. What is
    `dear` is kept for the next try when the database is away, the rest of such is forgotten."""

    events: tuple[Event, ...]
    gate: Gate | None = None
    dear: bool = True
    failed: bool = False


class Recorder:
    """One per process: it begins anew after a fork."""

    def __init__(self, engine: Engine, prices: Mapping[str, Price] = EMPTY) -> None:
        self.engine = engine
        self._prices = prices
        self._pid = 0
        self._queue: SimpleQueue[_Entry | None] = SimpleQueue()
        self._join: Callable[[float], bool] = lambda timeout: True
        self.healthy = True

    def record(self, *events: Event) -> None:
        """Enqueues; the writer takes them in this order."""
        self._put(_Entry(events))

    def write(self, *events: Event, dear: bool) -> None:
        """Enqueues and waits until they are committed. Raises RecordingFailed where the
        database does not take them now; only what is dear is then tried again."""
        opened = gate()
        entry = _Entry(events, opened, dear)
        self._put(entry)
        if not opened.wait(_WAIT) or entry.failed:
            raise RecordingFailed

    def close(self) -> None:
        """Writes what is queued, up to 10 seconds, and ends the thread."""
        if self._pid == os.getpid():
            self._queue.put(None)
            if not self._join(_DRAIN):
                _log.error("records were still unwritten at the end: %d", self._queue.qsize())
            self._pid = 0

    def _put(self, entry: _Entry) -> None:
        if self._pid != os.getpid():
            self._start()
        if self._queue.qsize() > _QUEUE_LIMIT:
            raise RecordingFailed("too many records wait for the database")
        self._queue.put(entry)

    def _start(self) -> None:
        self._pid, self._queue = os.getpid(), SimpleQueue()
        self._join = start_thread(self._run)
        atexit.register(self.close)

    def _run(self) -> None:
        store = Store(self.engine, new_id(), self._prices)
        ended = False
        kept: list[_Entry] = []
        while not ended or kept:
            batch, last = self._collect(kept)
            ended = ended or last
            kept = self._commit(store, batch)
            prices.load()  # while the first request is on its way
            if kept and ended:
                _log.error("records could not be written at the end: %d", len(kept))
                break
        store.close()

    def _collect(self, kept: list[_Entry]) -> tuple[list[_Entry], bool]:
        """What was kept, and all that has come; waits for the first, or for a pause before a
        retry. The flag tells that the recorder was closed."""
        batch = kept
        try:
            entry = self._queue.get(timeout=_RETRY_PAUSE if kept else None)
            while entry is not None:
                batch.append(entry)
                if len(batch) >= _BATCH:
                    return batch, False
                entry = self._queue.get_nowait()
        except Empty:
            return batch, False
        return batch, True

    def _commit(self, store: Store, batch: list[_Entry]) -> list[_Entry]:
        """Writes a batch; gives back what must be tried again."""
        if not batch:
            return []
        try:
            store.write(event for entry in batch for event in entry.events)
        except StoreDown as error:
            return self._refuse(batch, error)
        except Exception:  # noqa: BLE001 - the writer must live on
            _log.warning("a batch of records was refused: one by one now")
            return self._one_by_one(store, batch)
        self.healthy = True
        _open(batch)
        return []

    def _refuse(self, batch: list[_Entry], error: StoreDown) -> list[_Entry]:
        """Those who wait are told; what is dear is kept for the next try."""
        if self.healthy:
            _log.error("the database takes no records: %s", error)
        self.healthy = False
        for entry in batch:
            entry.failed = True
        _open(batch)
        return [_Entry(entry.events) for entry in batch if entry.dear]

    def _one_by_one(self, store: Store, batch: list[_Entry]) -> list[_Entry]:
        """One bad entry may not take its neighbours with it."""
        for entry in batch:
            try:
                store.write(entry.events)
            except Exception as error:  # noqa: BLE001 - the writer must live on
                entry.failed = True
                _log.error("a record could not be written: %s", type(error).__name__)
        _open(batch)
        return []


def _open(entries: list[_Entry]) -> None:
    for entry in entries:
        if entry.gate is not None:
            entry.gate.open()
