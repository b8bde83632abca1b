"""The thread that brings records to the database: its worker's log first, then the logs of dead workers.

Normal work, an outage, catching up and taking over are one path: read frames from a position, apply them in
slices, move the position in the same transaction.
"""

from __future__ import annotations

import logging
from _queue import Empty, SimpleQueue  # the C type: gevent patches only the module `queue`
from collections.abc import Callable, Sequence
from math import inf
from time import monotonic

from sqlalchemy import Connection

from ..waiting import OneShotEvent, unpatched
from . import log_folder, log_reader
from .application import SliceSize, apply_frames
from .database import SchemaTooNew
from .events import Event
from .frames import Frame
from .log import RecordLog
from .rejects import Rejects
from .store import DatabaseBusy, DatabaseDown, PositionChanged, Store, TablesMissing
from .takeover import Takeover
from .unapplied import UnappliedFrames
from .unwritten import AGAIN_SECONDS, UnwrittenEvents
from .upgrade import Upgrade
from .waiters import Waiters

_log = logging.getLogger("aibridge.records")
_LINGER_SECONDS = 0.05  # events of this time are committed together, unless somebody waits for them
_RETRY_SECONDS = 0.01
_TICK_SECONDS = 1.0
_RECONNECT_SECONDS = 0.5
_RENEW_SECONDS = 10.0
_MAX_BUSY_SECONDS = 5.0
_FINISH_SECONDS = 8.0
_TAKEOVER_STEPS = 8  # a slice of a dead worker's log for so many of the own one


class Applier:
    """Applies one worker's log. `position` is the offset up to which it is in the database."""

    def __init__(
        self,
        log: RecordLog,
        unwritten: UnwrittenEvents,
        store: Store,
        takeover: Takeover,
        rejects: Rejects,
        identity: str,
        exchange: Callable[[Connection], None],
    ) -> None:
        """`identity` names the database as long as its id is unknown. `exchange` is called each second, in a
        transaction, while the database is there.
        """
        self._log, self._unwritten = log, unwritten
        self._store, self._takeover, self._rejects = store, takeover, rejects
        self._identity, self._exchange = identity, exchange
        self.position = 0
        self.is_up = True  # until the first attempt
        self.has_tried = False
        self._caught_up_at = self._mark_at = monotonic()
        self._mark = 0
        self._steps = 0
        self._unapplied = UnappliedFrames(log)
        self._is_prepared = False
        self._slice = SliceSize()
        self._wakeups: SimpleQueue[bool] = SimpleQueue()
        self._is_idle = False
        self._waiters = Waiters()
        self._next_connect = self._next_tick = self._next_renewal = 0.0
        self._last_reason = ""
        self._busy_since = 0.0
        self._inode = 0
        self._upgrade = Upgrade(store)

    @property
    def seconds_behind(self) -> float:
        """An upper bound of the age of the oldest event that is not in the database; 0 if there is none."""
        return monotonic() - self._caught_up_at if self.position < self._log.end else 0.0

    @property
    def identities(self) -> tuple[str, ...]:
        """What the logs of this database may name it: its address and its id; none before its id is known."""
        id = self._store.database_id
        return (self._identity, id) if id else ()

    def notify(self) -> None:
        """Something was appended. Wakes the thread only if it is idle."""
        if self._is_idle:
            self._is_idle = False
            self._wakeups.put(False)

    def hurry(self) -> None:
        """Applies what was appended at once, since somebody asks for it."""
        self._wakeups.put(False)

    def wait_for(self, position: int, applied: OneShotEvent) -> None:
        """Sets `applied` once the log is applied up to `position`."""
        self._waiters.add(position, applied)
        self.hurry()

    def stop_waiting(self, position: int, applied: OneShotEvent) -> None:
        """Forgets what `wait_for` was called with."""
        self._waiters.remove(position, applied)

    def stop(self) -> None:
        """Ends the thread once the log is applied, or the database is away."""
        self._wakeups.put(True)

    def run(self) -> None:
        """The thread's function."""
        is_stopping = False
        while not is_stopping:
            is_stopping = self._wait()
            self._run_safely(self._step)
            self.has_tried = True
        self._run_safely(self._finish)
        self._store.close()

    def _wait(self) -> bool:
        """Waits for work, and then for what may follow it soon; returns whether the thread is to end."""
        self._is_idle = True  # before it looks: else an append in between would wake nobody
        if not self._has_backlog() and self._is_stopped_within(max(0.001, self._next_work - monotonic())):
            return True
        self._is_idle = False
        is_own = self.position < self._log.end
        if is_own and not self._unapplied.has_more and not self._waiters:
            return self._is_stopped_within(_LINGER_SECONDS)
        unpatched("time", "sleep")(0.0)  # requests have their turn
        return self._is_stopped_within(0.0)

    @property
    def _next_work(self) -> float:
        upgrade_at = self._upgrade.next_at if self._store.is_open else inf
        append_at = monotonic() + AGAIN_SECONDS if self._unwritten else inf
        return min(self._next_tick, upgrade_at, append_at)

    def _has_backlog(self) -> bool:
        return self._store.is_open and (self.position < self._log.end or self._takeover.is_running)

    def _is_stopped_within(self, seconds: float) -> bool:
        """Waits for a wakeup. One by `stop` ends the thread, others end the wait."""
        try:
            return self._wakeups.get(timeout=seconds)
        except Empty:
            return False

    def _run_safely(self, work: Callable[[], None]) -> None:
        """The thread survives any error."""
        try:
            work()
            self._busy_since = 0.0
        except DatabaseBusy:
            self._was_busy()
        except (DatabaseDown, SchemaTooNew) as error:
            self._went_down(str(error))
        except Exception:  # noqa: BLE001 - logged below
            self._store.close()
            self.is_up, self._next_connect = False, monotonic() + _RECONNECT_SECONDS
            _log.exception("records could not be applied")

    def _was_busy(self) -> None:
        """Somebody else holds a lock: not an outage, unless it lasts."""
        self._busy_since = self._busy_since or monotonic()
        if monotonic() - self._busy_since > _MAX_BUSY_SECONDS:
            self._went_down("it is locked")
        unpatched("time", "sleep")(_RETRY_SECONDS)

    def _step(self) -> None:
        self._prepare()
        self._unwritten.append()
        if monotonic() >= self._next_tick:
            self._next_tick = monotonic() + _TICK_SECONDS
            self._is_prepared = self._is_prepared and not self._log.restore()
            self._probe()
        if not self._store.is_open:
            if monotonic() < self._next_connect:
                return
            self._connect()
        self._renew()
        if self.position < self._log.end:
            self._apply_own()
        self._note_progress()
        self._steps += 1
        if self.position >= self._log.end or self._steps % _TAKEOVER_STEPS == 0:
            self._takeover.advance()
            self._upgrade.advance()

    def _prepare(self) -> None:
        if not self._is_prepared:
            log_folder.set_database(self._log.path, self._store.database_id or self._identity)
            self._store.load_prices()
            self._is_prepared = True

    def _note_progress(self) -> None:
        """What was appended before the last mark is applied now: this bounds the age of the rest."""
        self._waiters.set_up_to(self.position)
        if self.position >= self._mark:
            self._caught_up_at = self._mark_at
            self._mark, self._mark_at = self._log.end, monotonic()

    def _connect(self) -> None:
        self._next_connect = monotonic() + _RECONNECT_SECONDS
        try:
            self._open_store()
        except BaseException:
            self._store.close()  # else it would seem to be connected
            raise
        log_folder.set_database(self._log.path, self._store.database_id)
        self._next_renewal = 0.0
        self._upgrade.start()
        if self._last_reason:
            _log.warning("the database takes records again")
        self.is_up, self._last_reason = True, ""

    def _open_store(self) -> None:
        inode = self._store.file_inode()  # before it is opened: what takes its place meanwhile is noticed
        try:
            self._store.open()
        except TablesMissing:
            self._store.migrate()
            self._store.open()
        self.position = min(self._store.position(self._log.id), self._log.end)
        self._inode = inode or self._store.file_inode()

    def _probe(self) -> None:
        """Notices a database that went away while nothing was to be written, and a file that was replaced."""
        if not self._store.is_open:
            return
        if self._store.file_inode() != self._inode:
            self._store.close()
            self._takeover.interrupt()
            self._next_connect = monotonic() + _RECONNECT_SECONDS  # it may be about to be replaced
            _log.error("the database's file was replaced or deleted: records go on in the new one")
        else:
            log_reader.note_position(self._log.path, self.position)  # the disk may have been full before
            self._store.run(self._exchange)

    def _renew(self) -> None:
        if monotonic() >= self._next_renewal:
            self._next_renewal = monotonic() + _RENEW_SECONDS
            self._takeover.renew()

    def _went_down(self, reason: str) -> None:
        self._store.close()
        self._takeover.interrupt()
        self.is_up = False
        if reason != self._last_reason:
            _log.error("the database takes no records: %s", reason)
        self._last_reason = reason

    def _apply_own(self) -> None:
        """Applies one slice of this worker's log."""
        frames = self._unapplied.take(self.position, self._slice.frames)
        try:
            if frames:
                with self._slice.measured(len(frames)):
                    self._apply(frames)
            elif self._unapplied.end > self.position:
                self._store.apply(self._log.id, (), self.position, self._unapplied.end)
                self.position = self._unapplied.end
        except PositionChanged:
            self.position = min(self._store.position(self._log.id), self._log.end)
            self._takeover.interrupt()
            _log.warning("the database knows another position: records are applied from there")
            return
        self._rejects.report_damage(self._log.id, self._unapplied.pop_damaged())
        log_reader.note_position(self._log.path, self.position)

    def _apply(self, frames: Sequence[Frame]) -> None:
        self.position = apply_frames(self._store, self._rejects, self._log.id, self.position, frames)

    def _apply_unwritten(self, events: Sequence[Event]) -> None:
        self._apply([Frame(self.position, self.position, 0.0, tuple(events))])

    def _finish(self) -> None:
        """Applies the rest of the log, and closes what this worker leaves open."""
        deadline = monotonic() + _FINISH_SECONDS
        while True:
            try:
                return self._finish_now()
            except DatabaseBusy:
                if monotonic() > deadline:
                    raise
                unpatched("time", "sleep")(_RETRY_SECONDS)

    def _finish_now(self) -> None:
        if not self._store.is_open:
            self._connect()
        while self.position < self._log.end:
            self._apply_own()
            self._waiters.set_up_to(self.position)
        self._unwritten.hand_over(self._apply_unwritten)
        self._store.interrupt_worker(self._log.id)
