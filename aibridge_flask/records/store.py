"""Applies events to the tables.

Position and rows are written in one transaction, so a batch may be repeated.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from ..errors import ConfigError
from ..pricing import PriceList
from ..waiting import fork_lock
from . import additions, interruption, old_costs, tables
from .costs import UNPRICED_STATUSES
from .database import SchemaTooNew, check_version, migrate, read_info
from .database_errors import describe, is_busy, is_row_fault
from .deadlines import DEADLINES
from .event_writer import EventWriter
from .events import Ended, Event
from .repricing import Repricing
from .statement import shared
from .sum_tables import holds

_CALL_SECONDS = 5.0
_MIGRATION_SECONDS = 600.0


class DatabaseDown(Exception):
    """The database is away, locked, silent or without our tables. Nothing of the batch was written."""


class TablesMissing(DatabaseDown):
    """The database lacks this version's tables."""


class DatabaseBusy(DatabaseDown):
    """Somebody else holds a lock. Nothing of the batch was written; the connection stays."""


class RowsRejected(Exception):
    """The database rejects a row of the batch. Nothing of the batch was written."""


class PositionChanged(Exception):
    """The database knows another position of the log: it was replaced, or has gone back in time."""


class Store:
    """Writes to the database, for one thread; keeps one connection open."""

    def __init__(
        self,
        engine: Engine,
        prices: PriceList,
        count_unpriced: Callable[[int], None] = lambda count: None,
    ) -> None:
        """`count_unpriced` hears of interceptions without a price."""
        self._count_unpriced = count_unpriced
        self._engine, self._prices = engine, prices
        self._connection: Connection | None = None
        self.database_id = ""
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._writer = EventWriter(engine, prices)
        self._repricing = Repricing(engine, prices)
        self._move = shared(_MOVE, engine.dialect)
        # SQLite's locks in memory would stay locked in a process that is forked meanwhile
        self._fork_guard: Any = fork_lock() if self._is_sqlite else contextlib.nullcontext()

    def open(self) -> None:
        """Connects, and reads the database's id. Raises DatabaseDown, TablesMissing, SchemaTooNew."""
        with self._errors(), DEADLINES.limit(_CALL_SECONDS), self._engine.connect() as connection:
            if not check_version(connection):
                raise TablesMissing("it lacks this version's tables")
            self.database_id = read_info(connection)["database_id"]
        with self._errors(), DEADLINES.limit(_CALL_SECONDS):
            self._connection = self._engine.connect()

    def migrate(self) -> None:
        """Makes or upgrades the tables. Raises DatabaseDown, SchemaTooNew."""
        with self._errors(), DEADLINES.limit(_MIGRATION_SECONDS):
            migrate(self._engine)

    def load_prices(self) -> None:
        """Reads what prices are taken from, in advance: it takes a sixth of a second."""
        self._prices.load()

    def create_indexes(self) -> None:
        """Creates missing indexes on a connection of its own. Raises SQLAlchemyError."""
        additions.create_indexes(self._engine)

    def file_inode(self) -> int:
        """Returns the inode of SQLite's file, 0 if it is gone or the database has none."""
        if not self._is_sqlite:
            return 0
        try:
            return Path(str(self._engine.url.database)).stat().st_ino
        except OSError:
            return 0

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with contextlib.suppress(Exception):
                connection.invalidate()  # else a rollback would wait for a database that is silent
                connection.close()

    def position(self, log_id: str) -> int:
        """Returns the position of a log, which is registered at 0 if it is new. Raises DatabaseDown."""
        with self._transaction(writes=False) as connection:  # waits for no other that writes
            query = sa.select(tables.logs.c.position).where(tables.logs.c.id == log_id)
            position = connection.scalar(query)
        if position is None:
            with self._transaction() as connection:
                connection.execute(sa.insert(tables.logs).values(id=log_id, position=0))
        return int(position or 0)

    def delete_log(self, log_id: str) -> None:
        """Deletes the position of a log whose file is gone. Raises DatabaseDown."""
        with self._transaction() as connection:
            connection.execute(sa.delete(tables.logs).where(tables.logs.c.id == log_id))

    def apply(self, log_id: str, events: Iterable[Event], old: int, new: int) -> None:
        """Applies the events between two positions of a log, all or none.

        Raises DatabaseDown, RowsRejected, PositionChanged.
        """
        rows = self._writer.rows(log_id, events)
        with self._batch() as cursor:
            self._move.run(cursor, [{"log": log_id, "old": old, "new": new}])
            if cursor.rowcount != 1:
                raise PositionChanged
            self._writer.write(cursor, rows)
        unpriced = sum(row["new_cost_status"] in UNPRICED_STATUSES for row in rows[Ended])
        if unpriced:
            self._count_unpriced(unpriced)

    def sum_unsummed(self, limit: int) -> int:
        """Adds interceptions to the sums that the version before has written, the newest first; returns how
        many. Raises DatabaseDown.
        """
        c = tables.interceptions.c
        query = sa.select(c.id).where(c.contributed.is_(sa.null())).order_by(c.started_at.desc()).limit(limit)
        with self._transaction() as connection:
            ids = list(connection.scalars(query))
            old_costs.fill(connection, ids)
            driver: Any = connection.connection.dbapi_connection
            self._writer.update_sums(driver.cursor(), ids)
        return len(ids)

    def apply_legacy(self, worker_id: str, events: Iterable[Event]) -> None:
        """Applies events that have no log: those of an earlier version's spool. Raises as `apply`."""
        rows = self._writer.rows(worker_id, events)
        with self._batch() as cursor:
            self._writer.write(cursor, rows)

    def interrupt_worker(self, worker_id: str) -> int:
        """Closes the open interceptions of a dead worker; returns how many. Raises DatabaseDown."""
        with self._transaction() as connection:
            ids = interruption.close(connection, self._repricing, worker_id, self._now())
            driver: Any = connection.connection.dbapi_connection
            self._writer.update_sums(driver.cursor(), ids)
            connection.execute(sa.delete(holds).where(holds.c.worker_id == worker_id))
            connection.execute(sa.delete(tables.workers).where(tables.workers.c.id == worker_id))
        return len(ids)

    def renew(self, worker_id: str, host: str) -> None:
        """Renews a worker's row, by the database's clock. Raises DatabaseDown."""
        insert = import_module(f"sqlalchemy.dialects.{self._engine.dialect.name}").insert
        values = {"id": worker_id, "host": host, "seen_at": self._now()}
        renewal = insert(tables.workers).values(values)
        with self._transaction() as connection:
            connection.execute(
                renewal.on_conflict_do_update(
                    index_elements=["id"], set_={"host": host, "seen_at": self._now()}
                )
            )

    def expired_workers(self, host: str, seconds: int) -> list[str]:
        """Returns the workers of other hosts that were last seen `seconds` ago. Raises DatabaseDown."""
        c = tables.workers.c
        with self._transaction() as connection:
            return list(
                connection.scalars(sa.select(c.id).where(c.host != host, c.seen_at < self._now(seconds)))
            )

    def run(self, step: Callable[[Connection], None]) -> None:
        """Runs a step in a transaction. Raises DatabaseDown."""
        with self._transaction() as connection:
            step(connection)

    def _now(self, seconds_ago: int = 0) -> Any:
        if self._is_sqlite:
            return sa.func.strftime("%Y-%m-%d %H:%M:%f", "now", f"-{seconds_ago} seconds")
        return sa.func.clock_timestamp() - sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds_ago)

    @contextlib.contextmanager
    def _transaction(self, writes: bool = True) -> Iterator[Connection]:
        """One transaction. Raises DatabaseDown."""
        connection = self._opened().execution_options(writes=writes)
        with (
            self._errors(),
            self._fork_guard,
            DEADLINES.limit(_CALL_SECONDS, connection.connection.dbapi_connection),
            connection.begin(),
        ):
            yield connection

    @contextlib.contextmanager
    def _batch(self) -> Iterator[Any]:
        """One transaction on the driver's cursor. Raises DatabaseDown, RowsRejected."""
        driver: Any = self._opened().connection.dbapi_connection
        try:
            with self._errors(), self._fork_guard, DEADLINES.limit(_CALL_SECONDS, driver):
                cursor = driver.cursor()
                if self._is_sqlite:
                    cursor.execute("BEGIN IMMEDIATE")
                yield cursor
                driver.commit()
        except (RowsRejected, PositionChanged):
            self._rollback()
            raise

    def _rollback(self) -> None:
        try:
            if self._connection is not None:
                driver: Any = self._connection.connection.dbapi_connection
                with DEADLINES.limit(_CALL_SECONDS, driver):
                    driver.rollback()
        except Exception:  # noqa: BLE001 - the next use of the connection fails
            self.close()

    def _opened(self) -> Connection:
        if self._connection is None:
            raise DatabaseDown("it is not connected")
        return self._connection

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Translates errors by what they mean. After any but a row's fault the connection is closed."""
        try:
            yield
        except (DatabaseDown, RowsRejected, PositionChanged, SchemaTooNew):
            raise
        except Exception as error:
            if is_row_fault(error):
                raise RowsRejected(describe(error)) from None
            if is_busy(error):
                self._rollback()
                raise DatabaseBusy(describe(error)) from None
            self.close()
            if isinstance(error, ConfigError):
                raise DatabaseDown(error.message) from None
            if isinstance(error, SQLAlchemyError | self._driver_errors() | OSError):
                raise DatabaseDown(describe(error)) from None
            raise

    def _driver_errors(self) -> type[Exception]:
        driver: Any = self._engine.dialect.dbapi
        error: type[Exception] = driver.Error
        return error


_MOVE = (
    sa.update(tables.logs)
    .where(tables.logs.c.id == sa.bindparam("log"), tables.logs.c.position == sa.bindparam("old"))
    .values(position=sa.bindparam("new"))
)
