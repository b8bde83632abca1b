"""Takes over from dead workers: applies their logs and closes their interceptions, in slices.

On this host a lock shows who is dead. On other hosts it is a row that was not renewed, by the database's
clock, and only after this worker has renewed its own row without a break: after an outage all rows are old.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from sys import maxsize
from time import monotonic

from sqlalchemy import URL

from . import legacy_spool, log_folder, log_reader
from .application import SliceSize, apply_frames
from .database import SchemaTooNew
from .events import Event
from .frames import Frame
from .rejects import Rejects
from .store import DatabaseBusy, DatabaseDown, PositionChanged, RowsRejected, Store

_log = logging.getLogger("aibridge.records")
_ROUND_SECONDS = 30.0
_RETRY_SECONDS = 1.0
_EXPIRY_SECONDS = 60
_UNBROKEN_SECONDS = 70.0
_SLICE_SECONDS = 0.02
_KEEP_SECONDS = 3600.0  # applied segments, from then on, for a database that goes back in time
_KEEP_BYTES = 256 << 20  # of applied segments of all logs


class Takeover:
    """The rounds of one worker. `advance` does one slice of a round, if one is due or running."""

    def __init__(
        self, store: Store, rejects: Rejects, folder: Path, own_id: str, configured: str, url: URL
    ) -> None:
        self._store, self._rejects, self._folder, self._own_id = store, rejects, folder, own_id
        self._configured, self._url = configured, url
        self._identity = log_folder.url_identity(url)
        self._host = log_folder.host_id(folder)
        self._round: Iterator[None] = iter(())
        self._is_incomplete = False
        self._slice = SliceSize()
        self.is_running = False
        self._next_round = 0.0
        self._renewed_since = 0.0
        self._finished: set[str] = set()
        self._faults: dict[str, str] = {}

    def renew(self) -> None:
        """Shows other hosts that this worker lives. Raises DatabaseDown."""
        self._store.renew(self._own_id, self._host)
        self._renewed_since = self._renewed_since or monotonic()

    def interrupt(self) -> None:
        """The database went away, or back in time: a round begins anew, and takes nothing for granted."""
        self._round, self.is_running = iter(()), False
        self._renewed_since = self._next_round = 0.0
        self._finished.clear()

    def advance(self) -> None:
        """Does one slice. Raises DatabaseDown."""
        if not self.is_running and monotonic() >= self._next_round:
            self._round, self.is_running, self._is_incomplete = self._slices(), True, False
        if self.is_running and next(self._round, self) is self:
            pause = _RETRY_SECONDS if self._is_incomplete else _ROUND_SECONDS
            self.is_running, self._next_round = False, monotonic() + pause

    def _slices(self) -> Iterator[None]:
        logs = log_folder.logs_of(self._folder, (self._store.database_id, self._identity))
        # one that failed comes last: it may have closed the connection, which begins the round anew
        for log in sorted(logs, key=lambda log: log.name in self._faults):
            if log.name != self._own_id:
                with self._isolated(log.name):
                    yield from self._take_over(log)
                if self._is_incomplete:
                    yield
        for spool in legacy_spool.files(self._folder, self._configured, self._url):
            with self._isolated(spool.name):
                yield from self._take_over_spool(spool)
        if self._renewed_since and monotonic() - self._renewed_since >= _UNBROKEN_SECONDS:
            for worker_id in self._store.expired_workers(self._host, _EXPIRY_SECONDS):
                with self._isolated(worker_id):
                    self._close(worker_id)
        self._delete_old_segments()

    @contextlib.contextmanager
    def _isolated(self, name: str) -> Iterator[None]:
        """What a file itself is at fault for keeps no other from its turn, and is logged once.

        Nor does a lock that somebody holds for a moment, or a database that went back in time: what is left
        is tried again soon. Raises what the database is at fault for.
        """
        try:
            yield
        except DatabaseBusy:
            self._is_incomplete = True
        except PositionChanged:
            self._finished.clear()
            self._is_incomplete = True
        except (DatabaseDown, SchemaTooNew):
            raise
        except Exception as error:  # noqa: BLE001 - logged below
            reason = (isinstance(error, OSError) and error.strerror) or type(error).__name__
            if self._faults.get(name) != reason:
                _log.error("it cannot be taken over, and is tried again: %s: %s", name, reason)
            self._faults[name] = reason
        else:
            self._faults.pop(name, None)

    def _take_over(self, log: Path) -> Iterator[None]:
        with log_folder.lock_if_dead(log) as is_dead:
            if not is_dead:
                return
            position = self._store.position(log.name)
            while (chunk := log_reader.read(log, position, maxsize)).end > position:
                self._finished.discard(log.name)
                yield from self._apply(log, position, chunk)
                position = chunk.end
            # a worker that was killed, or whose disk was full, may have noted less
            if log_reader.read_position(log) != position:
                log_reader.note_position(log, position)
            if log.name not in self._finished:
                self._close(log.name)
                self._finished.add(log.name)
            if log_reader.is_empty(log):
                log_folder.remove(log)
                self._store.delete_log(log.name)

    def _apply(self, log: Path, position: int, chunk: log_reader.Chunk) -> Iterator[None]:
        """Reports damage once it was passed, so that what is tried again reports nothing again."""
        frames, damaged = list(chunk.frames), chunk.damaged
        while frames:
            part, frames = frames[: self._slice.frames], frames[self._slice.frames :]
            passed = min(damaged, _gaps(position, part))
            with self._slice.measured(len(part)):
                position = apply_frames(self._store, self._rejects, log.name, position, part)
            log_reader.note_position(log, position)
            self._rejects.report_damage(log.name, passed)
            damaged -= passed
            yield
        if position < chunk.end:
            self._store.apply(log.name, (), position, chunk.end)
            log_reader.note_position(log, chunk.end)
        self._rejects.report_damage(log.name, damaged)

    def _take_over_spool(self, spool: Path) -> Iterator[None]:
        with legacy_spool.lock_if_dead(spool) as is_dead:
            if not is_dead:
                return
            if spool.name not in self._finished:
                yield from self._apply_spool(spool)
                self._finished.add(spool.name)
            legacy_spool.remove(spool)

    def _apply_spool(self, spool: Path) -> Iterator[None]:
        unreadable, begun = 0, monotonic()
        for event in legacy_spool.events(spool):
            if event is None:
                unreadable += 1
            else:
                self._apply_legacy(spool.stem, event)
            if monotonic() - begun > _SLICE_SECONDS:
                yield
                begun = monotonic()
        self._close(spool.stem)
        self._rejects.report_damage(spool.name, unreadable)

    def _apply_legacy(self, worker_id: str, event: Event) -> None:
        try:
            self._store.apply_legacy(worker_id, (event,))
        except RowsRejected as error:
            self._rejects.set_aside(event, str(error))

    def _close(self, worker_id: str) -> None:
        count = self._store.interrupt_worker(worker_id)
        if count:
            _log.warning("interceptions of a worker that died were closed: %d", count)

    def _delete_old_segments(self) -> None:
        """Deletes segments that were applied too long ago or are too many, of all logs of this host."""
        kept, now = 0, time.time()
        for applied_at, segment in self._applied_segments():
            kept += segment.end - segment.start
            if now - applied_at > _KEEP_SECONDS or kept > _KEEP_BYTES:
                with self._isolated(str(segment.path)):
                    segment.path.unlink(missing_ok=True)

    def _applied_segments(self) -> list[tuple[float, log_reader.Segment]]:
        """The newest first. The position of a log that failed may be that of a database that went back."""
        found: list[tuple[float, log_reader.Segment]] = []
        for log in log_folder.logs(self._folder):
            if log.name not in self._faults:
                with self._isolated(f"{log.name}/"):
                    found += self._applied_segments_of(log)
        return sorted(found, key=lambda pair: pair[0], reverse=True)

    def _applied_segments_of(self, log: Path) -> Iterator[tuple[float, log_reader.Segment]]:
        """Without the newest of the log of a living worker, to which it appends."""
        position, segments = log_reader.read_position(log), log_reader.segments(log)
        for segment in segments if log.name in self._finished else segments[:-1]:
            if segment.end <= position:
                with contextlib.suppress(FileNotFoundError):  # another worker has deleted it
                    yield log_reader.applied_at(segment), segment


def _gaps(position: int, part: Sequence[Frame]) -> int:
    """Returns how many frames do not begin where the one before has ended."""
    ends = [position, *(frame.end for frame in part)]
    return sum(frame.start != end for frame, end in zip(part, ends, strict=False))
