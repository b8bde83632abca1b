"""Brings SQLite's write-ahead log home, in a thread of its own: it waits for the disk, and whoever
writes would wait with it, and the requests with them.

https://www.sqlite.org/wal.html#avoiding_excessively_large_wal_files
"""

from __future__ import annotations

import contextlib
import logging
from _queue import Empty, SimpleQueue  # the C type: gevent patches only the module `queue`
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ..waiting import fork_lock, start_thread

_log = logging.getLogger("aibridge.records")
_PAUSE = 1.0


class WalCheckpointer:
    """One per process that writes to a SQLite database; others have nothing to bring home."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._error = cast(Any, engine.dialect.dbapi).Error
        self._log_file = Path(f"{engine.url.database}-wal")
        self._seen = 0
        self._end: SimpleQueue[None] = SimpleQueue()
        self._join: Callable[[float], bool] = lambda timeout: True

    def start(self) -> None:
        if self._engine.dialect.name == "sqlite":
            self._join = start_thread(self._run)

    def close(self, timeout: float) -> None:
        """Ends the thread; waits for that, up to so many seconds."""
        self._end.put(None)
        self._join(timeout)

    def _run(self) -> None:
        while True:
            try:
                return self._end.get(timeout=_PAUSE)
            except Empty:
                self._look()

    def _look(self) -> None:
        try:
            written = self._log_file.stat().st_mtime_ns
            if written != self._seen:
                with fork_lock():
                    self._bring_home()
                self._seen = written
        except (OSError, SQLAlchemyError, self._error) as error:
            _log.debug("the write-ahead log stays: %s", type(error).__name__)

    def _bring_home(self) -> None:
        """As much as can be without keeping anybody waiting."""
        with contextlib.closing(self._engine.raw_connection()) as connection:
            connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
