"""Checkpoints SQLite's write-ahead log in a separate thread.

A checkpoint waits for the disk. In the writer's thread, the writer and all requests would wait with it.

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
_INTERVAL = 1.0  # seconds


class WalCheckpointer:
    """One per process that writes records. Does nothing for databases other than SQLite."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._error = cast(Any, engine.dialect.dbapi).Error
        self._wal_file = Path(f"{engine.url.database}-wal")
        self._checkpointed_at = 0
        self._stop: SimpleQueue[None] = SimpleQueue()
        self._join: Callable[[float], bool] = lambda timeout: True

    def start(self) -> None:
        if self._engine.dialect.name == "sqlite":
            self._join = start_thread(self._run)

    def close(self, timeout: float) -> None:
        """Ends the thread, and waits up to `timeout` seconds for it."""
        self._stop.put(None)
        self._join(timeout)

    def _run(self) -> None:
        while True:
            try:
                return self._stop.get(timeout=_INTERVAL)
            except Empty:
                self._checkpoint_if_written()

    def _checkpoint_if_written(self) -> None:
        try:
            modified_at = self._wal_file.stat().st_mtime_ns
            if modified_at != self._checkpointed_at:
                with fork_lock():
                    self._checkpoint()
                self._checkpointed_at = modified_at
        except (OSError, SQLAlchemyError, self._error) as error:
            _log.debug("the write-ahead log stays: %s", type(error).__name__)

    def _checkpoint(self) -> None:
        """Copies as much as possible without blocking readers or writers."""
        with contextlib.closing(self._engine.raw_connection()) as connection:
            connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def truncate(engine: Engine) -> bool:
    """Copies all of the log into the database's file and empties it; returns false if a reader is in the way.

    Raises SQLAlchemyError.
    """
    with fork_lock(), contextlib.closing(engine.raw_connection()) as connection:
        (is_busy, *_), *_ = connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return not is_busy
