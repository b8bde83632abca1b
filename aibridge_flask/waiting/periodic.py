"""Work that is done every few seconds while there is something to do."""

from __future__ import annotations

import threading
from collections.abc import Callable

from .threads import after_fork


class Periodic:
    """Calls `work` every `seconds` from `start` on, until it returns false; `start` may then be called again.

    A greenlet under gevent, else a thread.
    """

    def __init__(self, seconds: float, work: Callable[[], bool]) -> None:
        self._seconds, self._work = seconds, work
        self._reset()
        after_fork(self, Periodic._reset)

    def _reset(self) -> None:
        self._lock, self._stop, self._is_running = threading.Lock(), threading.Event(), False

    def start(self) -> None:
        if self._is_running:
            return
        with self._lock:
            if not self._is_running:
                self._is_running, self._stop = True, threading.Event()
                threading.Thread(target=self._run, args=(self._stop,), daemon=True).start()

    def close(self) -> None:
        """Ends the work after the call that may be running."""
        with self._lock:
            self._stop.set()
            self._is_running = False

    def _run(self, stop: threading.Event) -> None:
        is_wanted = True
        while is_wanted and not stop.wait(self._seconds):
            with self._lock:
                self._is_running = is_wanted = self._work()
