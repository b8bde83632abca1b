"""Takes over from dead workers: applies their logs and closes their interceptions, in slices.

On this host a lock shows who is dead. On other hosts it is a row that was not renewed, by the database's
clock, and only after this worker has renewed its own row without a break: after an outage all rows are old.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from sys import maxsize
from time import monotonic

from sqlalchemy import URL

from . import legacy_spool, log_folder, log_reader
from .application import SliceSize, apply_frames
from .rejects import Rejects
from .store import RowsRejected, Store

_log = logging.getLogger("aibridge.records")
_ROUND_SECONDS = 30.0
_EXPIRY_SECONDS = 60
_UNBROKEN_SECONDS = 70.0
_KEEP_SECONDS = 3600.0  # applied segments, for a database that goes back in time
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
        self._slice = SliceSize()
        self.is_running = False
        self._next_round = 0.0
        self._renewed_since = 0.0
        self._finished: set[str] = set()

    def renew(self) -> None:
        """Shows other hosts that this worker lives. Raises DatabaseDown."""
        self._store.renew(self._own_id, self._host)
        self._renewed_since = self._renewed_since or monotonic()

    def interrupt(self) -> None:
        """The database went away: a round begins anew when it is back."""
        self._round, self.is_running = iter(()), False
        self._renewed_since = self._next_round = 0.0
        self._finished.clear()

    def advance(self) -> None:
        """Does one slice. Raises DatabaseDown."""
        if not self.is_running and monotonic() >= self._next_round:
            self._round, self.is_running = self._slices(), True
        if self.is_running and next(self._round, self) is self:
            self.is_running, self._next_round = False, monotonic() + _ROUND_SECONDS

    def _slices(self) -> Iterator[None]:
        for log in log_folder.logs(self._folder):
            if log.name != self._own_id and self._belongs_here(log):
                yield from self._take_over(log)
        for spool in legacy_spool.files(self._folder, self._configured, self._url):
            yield from self._take_over_spool(spool)
        if self._renewed_since and monotonic() - self._renewed_since >= _UNBROKEN_SECONDS:
            for worker_id in self._store.expired_workers(self._host, _EXPIRY_SECONDS):
                self._close(worker_id)
        self._delete_old_segments()

    def _belongs_here(self, log: Path) -> bool:
        return log_folder.database_of(log) in (self._store.database_id, self._identity, "")

    def _take_over(self, log: Path) -> Iterator[None]:
        with log_folder.lock_if_dead(log) as is_dead:
            if not is_dead:
                return
            position = self._store.position(log.name)
            while (chunk := log_reader.read(log, position, maxsize)).end > position:
                self._finished.discard(log.name)
                yield from self._apply(log, position, chunk)
                position = chunk.end
            if log.name not in self._finished:
                self._close(log.name)
                self._finished.add(log.name)
            if not log_reader.segments(log):
                log_folder.remove(log)
                self._store.delete_log(log.name)

    def _apply(self, log: Path, position: int, chunk: log_reader.Chunk) -> Iterator[None]:
        self._rejects.report_damage(log.name, chunk.damaged)
        frames = list(chunk.frames)
        while frames:
            part, frames = frames[: self._slice.frames], frames[self._slice.frames :]
            begun = monotonic()
            position = apply_frames(self._store, self._rejects, log.name, position, part)
            self._slice.adapt(len(part), monotonic() - begun)
            log_reader.note_position(log, position)
            yield
        if position < chunk.end:
            self._store.apply(log.name, (), position, chunk.end)
            log_reader.note_position(log, chunk.end)

    def _take_over_spool(self, spool: Path) -> Iterator[None]:
        with legacy_spool.lock_if_dead(spool) as is_dead:
            if not is_dead:
                return
            for batch, unreadable in legacy_spool.batches(spool):
                self._rejects.report_damage(spool.name, unreadable)
                for event in batch:
                    try:
                        self._store.apply_legacy(spool.stem, (event,))
                    except RowsRejected as error:
                        self._rejects.set_aside(event, str(error))
                yield
            self._close(spool.stem)
            legacy_spool.remove(spool)

    def _close(self, worker_id: str) -> None:
        count = self._store.interrupt_worker(worker_id)
        if count:
            _log.warning("interceptions of a worker that died were closed: %d", count)

    def _delete_old_segments(self) -> None:
        """Deletes applied segments that are too old or too many, of all logs of this host."""
        kept, now = 0, time.time()
        for modified, segment in self._applied_segments():
            kept += segment.end - segment.start
            if now - modified > _KEEP_SECONDS or kept > _KEEP_BYTES:
                segment.path.unlink(missing_ok=True)

    def _applied_segments(self) -> list[tuple[float, log_reader.Segment]]:
        """The newest first; without the newest of each log of a living worker, to which it appends."""
        found: list[tuple[float, log_reader.Segment]] = []
        for log in log_folder.logs(self._folder):
            position, segments = log_reader.read_position(log), log_reader.segments(log)
            closed = segments if log.name in self._finished else segments[:-1]
            for segment in closed:
                try:
                    modified = segment.path.stat().st_mtime
                except OSError:
                    continue
                if segment.end <= position:
                    found.append((modified, segment))
        return sorted(found, key=lambda pair: pair[0], reverse=True)
