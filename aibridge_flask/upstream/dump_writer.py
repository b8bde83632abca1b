"""The thread that writes the dumps of one provider, and clears old ones away."""

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
_QUEUE_LIMIT = 64 << 20
_ENTRY = 512
_SWEEP_AFTER = 64 << 20
_SWEEP_EVERY = 600.0
_QUIET = 600.0
_END = 5.0
_OVERFLOW = "the disk is too slow"


@dataclass(frozen=True, slots=True)
class _QueuedWrite:
    file: DumpFile
    data: bytes
    last: bool = False

    @property
    def cost(self) -> int:
        return len(self.data) + _ENTRY


class DumpWriter:
    """Takes what is to be written, and never waits. One per process: it begins anew after a fork."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._begin()
        after_fork(self, DumpWriter._begin)

    def _begin(self) -> None:
        self._lock, self._running = threading.Lock(), False
        self._offered = self._written = 0
        self._queue: SimpleQueue[_QueuedWrite | None] = SimpleQueue()
        self._join: Callable[[float], bool] = lambda timeout: True

    def put(self, file: DumpFile, data: bytes) -> None:
        """What does not fit any more is left out, and the dump says so."""
        with self._lock:
            if not self._fits(len(data), _QUEUE_LIMIT):
                file.cut = file.cut or _OVERFLOW
            if data and not file.cut:
                self._offer(_QueuedWrite(file, data))

    def end(self, file: DumpFile) -> None:
        """Nothing more comes; may be called again."""
        with self._lock:
            if not file.ended and self._fits(0, 2 * _QUEUE_LIMIT):
                self._offer(_QueuedWrite(file, b"", last=True))
            file.ended = True

    def close(self) -> None:
        """Writes what is queued, up to 5 seconds, and ends the thread."""
        atexit.unregister(self.close)
        with self._lock:
            running, self._running = self._running, False
            self._queue.put(None)
        if running and not self._join(_END):
            _log.warning("dumps were still unwritten at the end")

    def _fits(self, size: int, limit: int) -> bool:
        return self._offered - self._written + size <= limit

    def _offer(self, entry: _QueuedWrite) -> None:
        if not self._running:
            self._running, self._queue = True, SimpleQueue()
            self._offered = self._written = 0
            self._join = start_thread(self._run)
            atexit.register(self.close)
        self._offered += entry.cost
        self._queue.put(entry)

    def _run(self) -> None:
        """Whatever happens to a dump, the thread lives on."""
        queue, since, due, quiet = self._queue, 0, 0.0, 0.0
        while True:
            try:
                if since >= _SWEEP_AFTER or time.monotonic() >= due:
                    since, due = 0, time.monotonic() + _SWEEP_EVERY
                    sweep(self._folder)
                entry = queue.get(timeout=_SWEEP_EVERY)
                if entry is None:
                    return
                since += len(entry.data)
                self._written += entry.cost
                entry.file.write(entry.data, entry.last)
            except Empty:
                continue
            except Exception as error:  # noqa: BLE001 - told just below
                if time.monotonic() >= quiet:
                    _log.warning("dumps cannot be written to %s: %s", self._folder, _words(error))
                    quiet = time.monotonic() + _QUIET


def _words(error: Exception) -> str:
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else repr(error)
