"""Deadlines on database calls, enforced from outside.

A silent server never answers, nor do its own time-outs.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from time import monotonic
from typing import Any

from ..waiting import after_fork, start_thread, unpatched

_CHECK_SECONDS = 0.25
_IDLE_CHECKS = 40  # then the thread ends


class Deadlines:
    """Shuts connections down whose calls take too long.

    One per process; its thread runs only while needed.
    """

    def __init__(self) -> None:
        self._reset()
        after_fork(self, Deadlines._reset)

    def _reset(self) -> None:
        self._lock = unpatched("_thread", "allocate_lock")()
        self._thread_id = unpatched("_thread", "get_ident")
        self._calls: dict[int, tuple[float, Any]] = {}
        self._is_running = False

    @contextlib.contextmanager
    def limit(self, seconds: float, connection: Any = None) -> Iterator[None]:
        """Limits this thread's use of a DBAPI connection to `seconds`; it fails with the driver's error then.

        A connection that is opened within the block is limited by `attach`. Blocks do not nest.
        """
        thread = self._thread_id()
        with self._lock:
            self._calls[thread] = (monotonic() + seconds, connection)
            self._ensure_running()
        try:
            yield
        finally:
            with self._lock:
                self._calls.pop(thread, None)

    def attach(self, connection: Any) -> None:
        """Applies this thread's limit to a new connection."""
        thread = self._thread_id()
        with self._lock:
            if thread in self._calls:
                self._calls[thread] = (self._calls[thread][0], connection)

    def _run(self) -> None:
        sleep = unpatched("time", "sleep")
        idle_checks = 0
        while idle_checks < _IDLE_CHECKS:
            sleep(_CHECK_SECONDS)
            for connection in self._overdue():
                shut_down(connection)
            idle_checks = 0 if self._calls else idle_checks + 1
        with self._lock:
            self._is_running = False
            if self._calls:  # one has begun meanwhile
                self._ensure_running()

    def _ensure_running(self) -> None:
        """Starts the thread unless it runs. The lock is held."""
        if not self._is_running:
            self._is_running = True
            start_thread(self._run)

    def _overdue(self) -> list[Any]:
        with self._lock:
            now = monotonic()
            overdue = [(thread, connection) for thread, (end, connection) in self._calls.items() if end < now]
            for thread, connection in overdue:
                if connection is not None:
                    del self._calls[thread]
        return [connection for _, connection in overdue if connection is not None]


def shut_down(connection: Any) -> None:
    """Makes the call fail that another thread waits for: SQLite is interrupted, a socket is shut down."""
    with contextlib.suppress(Exception):
        if hasattr(connection, "interrupt"):
            connection.interrupt()
            return
        descriptor = os.dup(connection.pgconn.socket)
        with contextlib.closing(socket.socket(fileno=descriptor)) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)


DEADLINES = Deadlines()
