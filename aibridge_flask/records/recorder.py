"""Group commit: the events of all requests go through one queue to one real thread, which writes all that has
arrived in one transaction. Nobody else waits for the database.
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import tempfile
import threading
from _queue import SimpleQueue  # the C type: gevent patches only the module `queue`
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import URL

from ..config import Settings
from ..errors import ConfigError, RecordingFailed
from ..hooks import Hooks
from ..model import new_id
from ..waiting import after_fork, call_soon, fork_lock, one_shot_event, start_thread, under_gevent
from . import database
from .checkpoint import WalCheckpointer
from .events import Event
from .losses import LossCounter
from .spool import SUFFIX, Spool, count_spooled
from .store import Store
from .workers import WorkerRegistry
from .writer import PendingWrite, Writer

_log = logging.getLogger("aibridge.records")
_MAX_QUEUED = 100_000
_WRITE_TIMEOUT = 30.0  # seconds
_CLOSE_TIMEOUT = 10.0  # seconds
_LOCK_TIMEOUT_MS = 250  # then the writer writes to the spool instead


class Recorder:
    """One per application and process; it starts anew after a fork."""

    def __init__(self, settings: Settings, hooks: Hooks = Hooks()) -> None:
        """Migrates the database. Raises ConfigError if the database or the spool's folder cannot be used."""
        self.engine, self._settings = database.connect(settings.database_url), settings
        database.migrate(self.engine)
        self._folder = spool_folder(settings.spool_dir, self.engine.url)
        self._is_running = self._under_gevent = False
        self._start_lock = threading.Lock()
        self._queue: SimpleQueue[list[PendingWrite] | None] = SimpleQueue()
        self._pending: list[PendingWrite] = []
        self._join: Callable[[float], bool] = lambda timeout: True
        self._writers: tuple[Writer, ...] = ()
        self._checkpoints = WalCheckpointer(self.engine)
        self._hooks = hooks
        self._losses = LossCounter(hooks)
        after_fork(self, Recorder._reset_after_fork)

    @property
    def healthy(self) -> bool:
        """Whether records are accepted, by the database or by the spool."""
        return all(writer.healthy for writer in self._writers)

    def count_spooled(self) -> int:
        """Counts the events of this host that wait for the database. Reads files."""
        return count_spooled(self._folder)

    def start(self) -> None:
        """Starts this process's writer, unless it is running."""
        if self._is_running:
            return
        with self._start_lock:
            if not self._is_running:
                self._start()
                self._is_running = True

    def _reset_after_fork(self) -> None:
        self._is_running = False

    def _start(self) -> None:
        self._queue, self._pending, self._under_gevent = SimpleQueue(), [], under_gevent()
        worker_id = new_id()
        engine = database.connect(self._settings.database_url, _LOCK_TIMEOUT_MS)
        store = Store(engine, worker_id, self._settings.prices)
        self._losses = losses = LossCounter(self._hooks)
        registry = WorkerRegistry(self._folder, worker_id, store, losses)
        registry.register()
        spool = Spool(self._folder / f"{worker_id}{SUFFIX}", losses)
        refuses = self._settings.records.on_database_down == "refuse"
        writer = Writer(self._queue, store, spool, registry, losses, refuses)
        self._writers = (writer,)
        fork_lock()
        self._join = start_thread(writer.run)
        self._checkpoints = WalCheckpointer(engine)
        self._checkpoints.start()
        atexit.register(self.close)

    def record(self, *events: Event) -> None:
        """Queues events, which are written in this order."""
        self._enqueue(PendingWrite(events))

    def write(self, *events: Event, must_keep: bool) -> None:
        """Queues events and waits until they are written.

        Raises RecordingFailed if neither the database nor the spool accepts them now. Events that
        `must_keep` names are then retried, others are dropped.
        """
        if not must_keep and self._queue.qsize() > _MAX_QUEUED:
            raise RecordingFailed
        written = one_shot_event()
        entry = PendingWrite(events, written, must_keep)
        self._enqueue(entry)
        if not written.wait(_WRITE_TIMEOUT) or entry.failed:
            raise RecordingFailed

    def close(self) -> None:
        """Writes what is queued, for up to 10 seconds, and ends the thread."""
        atexit.unregister(self.close)
        if self._is_running:
            self._flush_pending()
            self._queue.put(None)
            if not self._join(_CLOSE_TIMEOUT):
                _log.error("records were still unwritten at the end: %d", self._queue.qsize())
                self._losses.add(self._queue.qsize())
            self._checkpoints.close(_CLOSE_TIMEOUT)
            self._losses.emit()
            self._is_running = False

    def _enqueue(self, entry: PendingWrite) -> None:
        self.start()
        if not self._under_gevent:
            self._queue.put([entry])
            return
        self._pending.append(entry)
        if len(self._pending) == 1:
            call_soon(self._flush_pending)

    def _flush_pending(self) -> None:
        """Queues all that came in one round of the hub as one entry.

        Each entry wakes the writer, which then takes the interpreter from the requests.
        """
        pending, self._pending = self._pending, []
        if pending:
            self._queue.put(pending)


def spool_folder(configured: str, url: URL) -> Path:
    """Returns the spool's folder, and creates it for its owner alone. Raises ConfigError."""
    folder = Path(configured) if configured else _default_folder(url)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid() or not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError
    except OSError as error:
        raise ConfigError(f"spool_dir: {folder} cannot be used: {type(error).__name__}") from None
    return folder.resolve()


def _default_folder(url: URL) -> Path:
    if url.get_backend_name() == "sqlite":
        return Path(f"{url.database}-spool")
    name = hashlib.sha256(url.render_as_string().encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"aibridge-{os.getuid()}-{name}"
