"""Records interceptions: events are appended to this worker's log by the request itself, which waits for
nothing else. The applier, a thread, brings them to the database.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

from ..config import Settings
from ..errors import ConfigError, RecordingFailed
from ..hooks import Hooks
from ..model import new_id
from ..pricing import PriceList
from ..waiting import after_fork, one_shot_event, start_thread, unpatched
from . import backlog, database, log_folder, log_search
from .applier import Applier
from .backlog import Backlog
from .checkpoint import WalCheckpointer
from .counters import Counters
from .events import Event
from .live import Exchange, probe
from .log import RecordLog
from .maintenance import Maintenance
from .rejects import Rejects
from .store import Store
from .takeover import Takeover
from .unwritten import AGAIN_SECONDS, UnwrittenEvents

_log = logging.getLogger("aibridge.records")
_CLOSE_SECONDS = 10.0
_COMMIT_SECONDS = 5.0  # that `durability = "database"` waits
_REFUSE_AFTER_SECONDS = 5.0
_READ_AFTER_WRITE_SECONDS = 0.1
_FIRST_CONNECTION_SECONDS = 5.0
_LOCK_TIMEOUT_MS = 100


class Recorder:
    """One per application and process. It starts with the first event, and anew after a fork."""

    def __init__(self, settings: Settings, hooks: Hooks = Hooks(), exchange: Exchange = probe) -> None:
        """Does no I/O. `exchange` is called each second in a transaction of the applier's thread.

        Raises ConfigError if the database's URL or driver cannot be used.
        """
        self.engine, self._settings = database.connect(settings.database_url), settings
        self._hooks, self._exchange = hooks, exchange
        self._refuses = settings.records.on_database_down == "refuse"
        self._waits_for_commit = settings.records.durability == "database"
        self._start_lock = threading.Lock()
        self._running: tuple[_Running, ...] = ()
        after_fork(self, Recorder._reset_after_fork)

    @property
    def healthy(self) -> bool:
        """Whether new interceptions are accepted."""
        return not any(part.unwritten for part in self._running) and not self._must_refuse()

    @property
    def worker_id(self) -> str:
        """What names this process in the database; empty before the start."""
        return self._running[0].log.id if self._running else ""

    @property
    def folder(self) -> Path:
        """The folder of this host's logs. Call `start` before."""
        return self._running[0].folder

    @property
    def written(self) -> int:
        """The offset up to which this process's log is written. Call `start` before."""
        return self._running[0].log.end

    @property
    def applied(self) -> int:
        """The offset up to which it is in the database. Call `start` before."""
        return self._running[0].applier.position

    @property
    def prices(self) -> PriceList:
        """Call `start` before."""
        return self._running[0].prices

    def start(self) -> None:
        """Creates this process's log and starts its applier, unless they are there.

        Raises ConfigError, OSError.
        """
        if self._running:
            return
        with self._start_lock:
            if not self._running:
                self._running = (_Running(self._settings, self._hooks, self._exchange),)
                atexit.register(self.close)

    def begin(self, *events: Event) -> None:
        """Records the start of an interception. Raises RecordingFailed; nothing was recorded then."""
        try:
            self.start()
            (part,) = self._running
            if not part.unwritten.append() or self._must_refuse():
                raise RecordingFailed
            end = part.log.append_fairly(events)
        except (OSError, ConfigError) as error:
            _log.error("records cannot be written: %s", error)
            raise RecordingFailed from None
        part.applier.notify()
        self._wait_for_commit(part, end)

    def record(self, *events: Event) -> None:
        """Records events.

        Never fails: what cannot be appended is kept in memory, and appended first when it can.
        """
        self._append(events)

    def end(self, *events: Event) -> None:
        """Records the end of an interception, as `record` does. Waits for the commit if so configured."""
        part, end = self._append(events)
        self._wait_for_commit(part, end)

    def wait_for_connection(self) -> None:
        """Waits until the database was asked once: a new one has no tables before. For a thread of a pool.

        Call `start` before, in the request's thread.
        """
        parts, sleep = self._running, unpatched("time", "sleep")
        deadline = monotonic() + _FIRST_CONNECTION_SECONDS
        while parts and not parts[0].applier.has_tried and monotonic() < deadline:
            sleep(0.005)

    def wait_until_applied(self) -> None:
        """As `wait_for_connection`; then waits up to 100 ms until this host's records are in the database."""
        self.wait_for_connection()
        parts, sleep = self._running, unpatched("time", "sleep")
        for part in parts:
            part.applier.hurry()
        deadline = monotonic() + _READ_AFTER_WRITE_SECONDS
        while parts and not parts[0].is_applied() and monotonic() < deadline:
            sleep(0.002)

    def wait_until_own_applied(self, seconds: float) -> None:
        """Waits in a request until this process's records are in the database."""
        for part in self._running:
            self._wait_for(part, part.log.end, seconds)

    def unapplied_events(self, text: bytes) -> Iterator[Event]:
        """Yields this host's events that are not in the database yet, of those frames of its logs that hold
        `text`. Reads files.

        Call `start` before, in the request's thread.
        """
        for part in self._running:
            yield from log_search.unapplied_events(part.folder, part.applier.identities, text)

    def backlog(self) -> Backlog:
        """Returns how far the database is behind, for all logs of this host. Reads files."""
        folder = self._running[0].folder if self._running else Path()
        return backlog.measure(folder, self._running[0].applier.identities) if self._running else Backlog()

    def close(self) -> None:
        """Applies all records, for up to 10 seconds, and ends the thread.

        What is left, another worker applies. The ends that come meanwhile go to the same log as their starts:
        of another log they might be applied first.
        """
        atexit.unregister(self.close)
        with self._start_lock:
            parts = self._running
            for part in parts:
                part.finish()
            self._running = ()
        for part in parts:
            part.close()

    def _append(self, events: tuple[Event, ...]) -> tuple[_Running, int]:
        self.start()
        (part,) = self._running
        return part, part.append(events)

    def _must_refuse(self) -> bool:
        """In refuse mode: the last probe failed, or the oldest unapplied event is too old."""
        if not self._refuses or not self._running:
            return False
        (part,) = self._running
        return not part.applier.is_up or part.applier.seconds_behind > _REFUSE_AFTER_SECONDS

    def _wait_for_commit(self, part: _Running, end: int) -> None:
        if self._waits_for_commit and end and not self._wait_for(part, end, _COMMIT_SECONDS):
            part.counters.add_unconfirmed()

    def _wait_for(self, part: _Running, end: int, seconds: float) -> bool:
        applied = one_shot_event()
        part.applier.wait_for(end, applied)
        if applied.wait(seconds):
            return True
        part.applier.stop_waiting(end, applied)
        return False

    def _reset_after_fork(self) -> None:
        """The log, its lock and its thread are the parent's."""
        self._start_lock = threading.Lock()
        for part in self._running:
            part.log.close_in_child()
        self._running = ()


class _Running:
    """The log of this process and what works on it."""

    def __init__(self, settings: Settings, hooks: Hooks, exchange: Exchange) -> None:
        engine = database.connect(settings.database_url, _LOCK_TIMEOUT_MS)
        self.folder = log_folder.prepare(settings.spool_dir, engine.url)
        self.counters = Counters(hooks)
        self.prices, id = PriceList(settings), new_id()
        self._store = Store(engine, self.prices, count_unpriced=self.counters.add_unpriced)
        rejects = Rejects(self.folder, id, self.counters)
        takeover = Takeover(self._store, rejects, self.folder, id, settings.spool_dir, engine.url)
        identity = log_folder.url_identity(engine.url)
        self.log = RecordLog(self.folder, id)  # last, since it is to be closed if anything fails
        self.unwritten = UnwrittenEvents(self.log)
        parts = (self.log, self.unwritten, self._store, takeover, rejects)
        self.applier = Applier(*parts, identity, lambda connection: exchange(connection, id))
        self._join: Callable[[float], bool] = start_thread(self.applier.run)
        self._checkpoints = WalCheckpointer(engine)
        self._checkpoints.start()
        self._maintenance = Maintenance(engine, settings.records, self.counters.add_expired)
        self._maintenance.start()

    def append(self, events: tuple[Event, ...]) -> int:
        """Returns the offset after the events, 0 if they are kept in memory."""
        if self.unwritten.append():
            try:
                end = self.log.append_fairly(events)
            except OSError as error:
                _log.error("the log cannot be written: %s", error.strerror)
            else:
                self.applier.notify()
                return end
        self.unwritten.keep(events)
        self.applier.notify()
        return 0

    def is_applied(self) -> bool:
        return self.applier.position >= self.log.end and backlog.is_applied(
            self.folder, self.log.path, self.applier.identities
        )

    def finish(self) -> None:
        self.unwritten.append()
        self._maintenance.close(_CLOSE_SECONDS)
        self.applier.stop()
        if not self._join(_CLOSE_SECONDS):
            _log.error("records are left for another worker: %d bytes", self.log.end - self.applier.position)
        self._checkpoints.close(_CLOSE_SECONDS)
        self._wait_for_disk()

    def close(self) -> None:
        self.log.close()
        if lost := len(self.unwritten):
            _log.error("records could be written nowhere: %d", lost)
            self.counters.add_lost(lost)
        self.counters.emit()

    def _wait_for_disk(self) -> None:
        """What neither the log nor the database has taken: both may have room a moment later."""
        deadline, sleep = monotonic() + _CLOSE_SECONDS, unpatched("time", "sleep")
        while not self.unwritten.append() and monotonic() < deadline:
            sleep(AGAIN_SECONDS)


def check(settings: Settings) -> None:
    """For a server's start: prepares the log's folder and the database's tables. Raises ConfigError."""
    engine = database.connect(settings.database_url)
    log_folder.prepare(settings.spool_dir, engine.url)
    database.migrate(engine)
