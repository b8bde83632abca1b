"""Group commit: events of all requests go through one queue to one real thread, which writes
whatever has come meanwhile in one transaction. Nobody else waits for the database.
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
from .spool import SUFFIX, Spool, spooled
from .store import Store
from .workers import WorkerRegistry
from .writer import PendingWrite, Writer

_log = logging.getLogger("aibridge.records")
_QUEUE_LIMIT = 100_000
_WAIT = 30.0
_DRAIN = 10.0
_PATIENCE_MS = 250  # a writer that waits longer for a lock writes to the spool instead


class Recorder:
    """One per application and process: it begins anew after a fork."""

    def __init__(self, settings: Settings, hooks: Hooks = Hooks()) -> None:
        """Brings the database to this version's tables. Raises ConfigError where that, or the
        spool's folder, cannot be used."""
        self.engine, self._settings = database.connect(settings.database_url), settings
        database.migrate(self.engine)
        self._folder = spool_folder(settings.spool_dir, self.engine.url)
        self._running = self._under_gevent = False
        self._starting = threading.Lock()
        self._queue: SimpleQueue[list[PendingWrite] | None] = SimpleQueue()
        self._pending: list[PendingWrite] = []
        self._join: Callable[[float], bool] = lambda timeout: True
        self._writers: tuple[Writer, ...] = ()
        self._checkpoints = WalCheckpointer(self.engine)
        self._hooks = hooks
        self._losses = LossCounter(hooks)
        after_fork(self, Recorder._forked)

    @property
    def healthy(self) -> bool:
        """Records are taken, by the database or by the spool."""
        return all(writer.healthy for writer in self._writers)

    def spooled(self) -> int:
        """How many events wait on this host for the database. Reads files."""
        return spooled(self._folder)

    def start(self) -> None:
        """Starts this process's writer, if it does not run."""
        if self._running:
            return
        with self._starting:
            if not self._running:
                self._start()
                self._running = True

    def _forked(self) -> None:
        self._running = False

    def _start(self) -> None:
        self._queue, self._pending, self._under_gevent = SimpleQueue(), [], under_gevent()
        worker_id = new_id()
        engine = database.connect(self._settings.database_url, _PATIENCE_MS)
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
        """Enqueues; the writer takes them in this order."""
        self._put(PendingWrite(events))

    def write(self, *events: Event, must_keep: bool) -> None:
        """Enqueues and waits until they are written. Raises RecordingFailed where neither
        database nor spool takes them now; only what is dear is then tried again."""
        if not must_keep and self._queue.qsize() > _QUEUE_LIMIT:
            raise RecordingFailed
        opened = one_shot_event()
        entry = PendingWrite(events, opened, must_keep)
        self._put(entry)
        if not opened.wait(_WAIT) or entry.failed:
            raise RecordingFailed

    def close(self) -> None:
        """Writes what is queued, up to 10 seconds, and ends the thread."""
        atexit.unregister(self.close)
        if self._running:
            self._hand_over()
            self._queue.put(None)
            if not self._join(_DRAIN):
                _log.error("records were still unwritten at the end: %d", self._queue.qsize())
                self._losses.add(self._queue.qsize())
            self._checkpoints.close(_DRAIN)
            self._losses.tell()
            self._running = False

    def _put(self, entry: PendingWrite) -> None:
        self.start()
        if not self._under_gevent:
            self._queue.put([entry])
            return
        self._pending.append(entry)
        if len(self._pending) == 1:
            call_soon(self._hand_over)

    def _hand_over(self) -> None:
        """One entry of the queue for all that came in one round of the hub: each wakes the writer,
        which then takes the interpreter from the requests."""
        pending, self._pending = self._pending, []
        if pending:
            self._queue.put(pending)


def spool_folder(configured: str, url: URL) -> Path:
    """The folder, which is made for its owner alone. Raises ConfigError."""
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
