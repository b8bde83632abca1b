"""Work on many rows beside the traffic: short transactions, with pauses between them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from time import monotonic
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from ..waiting import fork_lock
from .database_errors import is_busy
from .deadlines import DEADLINES

T = TypeVar("T")
_LONG, _SHORT = 0.01, 0.004  # seconds of a slice
_PAUSE_SECONDS = 0.005
_PAUSE_SHARE = 3  # a pause is so many times as long as the slice before it
_CALL_SECONDS = 30.0
_BUSY_SECONDS = 0.05
_FIRST_SIZE, _MAX_SIZE = 10, 500


class Stopped(Exception):
    """The process ends."""


class Slices:
    """Runs transactions on one connection, which is closed with the block that this is entered with.

    `size` is how many rows fit into a transaction of some milliseconds, as those before have shown.
    """

    def __init__(self, engine: Engine, is_stopped_within: Callable[[float], bool]) -> None:
        """`is_stopped_within` waits for so many seconds, and returns whether the work is to end."""
        self.engine, self._is_stopped_within = engine, is_stopped_within
        self.size = _FIRST_SIZE
        self.is_sqlite = engine.dialect.name == "sqlite"
        self._open = contextlib.ExitStack()
        self._guard: Any = fork_lock() if self.is_sqlite else contextlib.nullcontext()

    def __enter__(self) -> Self:
        with DEADLINES.limit(_CALL_SECONDS):
            self._connection = self._open.enter_context(self.engine.connect())
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is not None:
            self._connection.invalidate()  # a rollback would wait for a database that is silent
        self._open.close()

    def read(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` in a transaction that changes nothing. Raises SQLAlchemyError, Stopped."""
        self.pause(0.0)
        return self._run(work, writes=False)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` in a transaction, again while somebody else holds a lock; then pauses.

        Raises SQLAlchemyError, Stopped.
        """
        while True:
            begun = monotonic()
            try:
                result = self._run(work, writes=True)
            except DBAPIError as error:
                if not is_busy(error):
                    raise
                self.pause(_BUSY_SECONDS)
            else:
                self._adapt(monotonic() - begun)
                return result

    def pause(self, seconds: float) -> None:
        """Waits. Raises Stopped."""
        if self._is_stopped_within(seconds):
            raise Stopped

    def _run(self, work: Callable[[Connection], T], writes: bool) -> T:
        connection = self._connection.execution_options(writes=writes)
        driver = connection.connection.dbapi_connection
        with self._guard, DEADLINES.limit(_CALL_SECONDS, driver), connection.begin():
            return work(connection)

    def _adapt(self, seconds: float) -> None:
        if seconds > _LONG:
            self.size = max(1, self.size // 2)
        elif seconds < _SHORT:
            self.size = min(2 * self.size, _MAX_SIZE)
        self.pause(max(_PAUSE_SECONDS, _PAUSE_SHARE * seconds))
