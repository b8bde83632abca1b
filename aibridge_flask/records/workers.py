"""The registry of living workers. A worker that died leaves open interceptions, and records in its spool:
another one closes the former and writes the latter.

On one host a lock on a file shows that a worker lives; the kernel frees it however the process dies.
Between hosts it is a row in the database that the worker renews.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from .events import now
from .losses import LossCounter
from .spool import SUFFIX, Spool
from .store import Store

_log = logging.getLogger("aibridge.records")
_LOCK = ".lock"
_EXPIRY = timedelta(seconds=60)


class WorkerRegistry:
    """The registration of one worker; used by its writer."""

    def __init__(self, folder: Path, worker_id: str, store: Store, losses: LossCounter) -> None:
        self._folder, self._id, self._store, self._losses = folder, worker_id, store, losses
        self._host = socket.gethostname()
        self._file = -1

    def register(self) -> None:
        """Takes this worker's lock. Raises OSError."""
        path = self._folder / f"{self._id}{_LOCK}"
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def renew(self) -> None:
        """Renews this worker's row, and closes the interceptions of expired workers. Raises DatabaseDown."""
        self._store.renew(self._id, self._host, now())
        for worker_id in self._store.expired_workers(now() - _EXPIRY):
            if worker_id != self._id:
                self._close_interceptions(worker_id)

    def close_dead_workers(self) -> None:
        """Takes over the records of dead workers of this host. Raises DatabaseDown."""
        for path in self._folder.glob(f"*{_LOCK}"):
            if path.stem != self._id:
                with _try_lock_of(path) as is_dead:
                    if is_dead:
                        self._take_over(path)

    def deregister(self, is_drained: bool) -> None:
        """Ends the registration. With records left in its spool, the worker counts as dead."""
        if self._file >= 0 and is_drained:
            (self._folder / f"{self._id}{_LOCK}").unlink(missing_ok=True)
            self._store.delete_worker(self._id)
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _take_over(self, lock: Path) -> None:
        spool = Spool(lock.with_suffix(SUFFIX), self._losses)
        if not spool.empty:
            spool.replay(self._store.write_each)
        spool.close()
        self._close_interceptions(lock.stem)
        lock.unlink(missing_ok=True)

    def _close_interceptions(self, worker_id: str) -> None:
        count = self._store.interrupt_worker(worker_id, now())
        if count:
            _log.warning("interceptions of a worker that died were closed: %d", count)


@contextlib.contextmanager
def _try_lock_of(path: Path) -> Iterator[bool]:
    """Yields whether another worker's lock could be taken: then that worker is dead.

    A lock file that a third worker has removed meanwhile is no longer at its path.
    """
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        yield False
        return
    try:
        yield _try_lock(file) and path.exists() and os.fstat(file).st_ino == path.stat().st_ino
    finally:
        os.close(file)


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
