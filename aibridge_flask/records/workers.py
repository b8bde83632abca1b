"""Which workers are alive. A worker that died leaves open interceptions, and records in its spool:
another one closes the first and writes the second.

On one host a lock on a file tells, which the kernel frees when a process dies, however it does.
Between hosts a row in the database does, which its worker renews.
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
_ABSENT = timedelta(seconds=60)


class WorkerRegistry:
    """One worker's place among the others; belongs to its writer."""

    def __init__(self, folder: Path, worker_id: str, store: Store, losses: LossCounter) -> None:
        self._folder, self._id, self._store, self._losses = folder, worker_id, store, losses
        self._host = socket.gethostname()
        self._file = -1

    def register(self) -> None:
        """From now on the others see that this worker lives. Raises OSError."""
        path = self._folder / f"{self._id}{_LOCK}"
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def renew(self) -> None:
        """Tells other hosts too, and closes what workers of theirs left. Raises StoreDown."""
        self._store.renew(self._id, self._host, now())
        for absent in self._store.expired_workers(now() - _ABSENT):
            if absent != self._id:
                self._close(absent)

    def close_dead_workers(self) -> None:
        """Takes over from dead workers of this host. Raises StoreDown."""
        for path in self._folder.glob(f"*{_LOCK}"):
            if path.stem != self._id:
                with _taken(path) as free:
                    if free:
                        self._take_over(path)

    def deregister(self, clean: bool) -> None:
        """This worker ends; with records still in its spool it ends as a dead one."""
        if self._file >= 0 and clean:
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
        self._close(lock.stem)
        lock.unlink(missing_ok=True)

    def _close(self, worker_id: str) -> None:
        count = self._store.interrupt_worker(worker_id, now())
        if count:
            _log.warning("interceptions of a worker that died were closed: %d", count)


@contextlib.contextmanager
def _taken(path: Path) -> Iterator[bool]:
    """Whether the lock of another worker could be had: then that worker is dead. A file that was
    taken over by yet another worker meanwhile is no longer at its place."""
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        yield False
        return
    try:
        yield _lock(file) and path.exists() and os.fstat(file).st_ino == path.stat().st_ino
    finally:
        os.close(file)


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
