"""The thread that writes the dumps of one provider, and deletes old ones."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from _queue import Empty, SimpleQueue  # the C type: gevent patches only the module `queue`
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..waiting import after_fork, start_thread
from .dump_file import DumpFile, sweep

_log = logging.getLogger("aibridge")
_MAX_QUEUED_BYTES = 64 << 20
_ENTRY_OVERHEAD = 512
_SWEEP_BYTES = 64 << 20
_SWEEP_SECONDS = 600.0
_LOG_INTERVAL = 600.0
_CLOSE_SECONDS = 5.0
_OVERFLOW = "the disk is too slow"


@dataclass(frozen=True, slots=True)
class _QueuedWrite:
    file: DumpFile
    data: bytes
    last: bool = False

    @property
    def cost(self) -> int:
        return len(self.data) + _ENTRY_OVERHEAD


class DumpWriter:
    """Queues writes without blocking. One per process: it resets itself after a fork."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reset()
        after_fork(self, DumpWriter._reset)

    def _reset(self) -> None:
        self._lock, self._is_running = threading.Lock(), False
        self._queued_bytes = self._written_bytes = 0
        self._queue: SimpleQueue[_QueuedWrite | None] = SimpleQueue()
        self._join: Callable[[float], bool] = lambda timeout: True

    def put(self, file: DumpFile, data: bytes) -> None:
        """Queues data. If the queue is full the data is dropped, and the dump says so."""
        with self._lock:
            if not self._fits(len(data), _MAX_QUEUED_BYTES):
                file.cut = file.cut or _OVERFLOW
            if data and not file.cut:
                self._enqueue(_QueuedWrite(file, data))

    def end(self, file: DumpFile) -> None:
        """Ends the dump. May be called again."""
        with self._lock:
            if not file.ended and self._fits(0, 2 * _MAX_QUEUED_BYTES):
                self._enqueue(_QueuedWrite(file, b"", last=True))
            file.ended = True

    def close(self) -> None:
        """Writes what is queued, up to 5 seconds, and ends the thread."""
        atexit.unregister(self.close)
        with self._lock:
            was_running, self._is_running = self._is_running, False
            self._queue.put(None)
        if was_running and not self._join(_CLOSE_SECONDS):
            _log.warning("dumps were still unwritten at the end")

    def _fits(self, size: int, limit: int) -> bool:
        return self._queued_bytes - self._written_bytes + size <= limit

    def _enqueue(self, entry: _QueuedWrite) -> None:
        if not self._is_running:
            self._is_running, self._queue = True, SimpleQueue()
            self._queued_bytes = self._written_bytes = 0
            self._join = start_thread(self._run)
            atexit.register(self.close)
        self._queued_bytes += entry.cost
        self._queue.put(entry)

    def _run(self) -> None:
        """The thread survives any error of a dump."""
        queue, unswept, next_sweep, next_log = self._queue, 0, 0.0, 0.0
        while True:
            try:
                if unswept >= _SWEEP_BYTES or time.monotonic() >= next_sweep:
                    unswept, next_sweep = 0, time.monotonic() + _SWEEP_SECONDS
                    sweep(self._folder)
                entry = queue.get(timeout=_SWEEP_SECONDS)
                if entry is None:
                    return
                unswept += len(entry.data)
                self._written_bytes += entry.cost
                entry.file.write(entry.data, entry.last)
            except Empty:
                continue
            except Exception as error:  # noqa: BLE001 - logged below
                if time.monotonic() >= next_log:
                    _log.warning("dumps cannot be written to %s: %s", self._folder, _describe(error))
                    next_log = time.monotonic() + _LOG_INTERVAL


def _describe(error: Exception) -> str:
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else repr(error)
