"""Writes events into the tables, a batch in one transaction."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Column, Connection, Engine, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    NotSupportedError,
    ProgrammingError,
    SQLAlchemyError,
)

from ..config.settings import Price
from ..model import Usage
from . import tables
from .events import (
    EVENTS,
    Answered,
    Ended,
    Event,
    ModelThought,
    Prompt,
    Started,
    TokenUse,
    TokenUsed,
    ToolUse,
)
from .prices import UNKNOWN, cost_micros
from .rows import row_of
from .statement import Statement

_log = logging.getLogger("aibridge.records")
_INSERTS: Mapping[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_BAD = (IntegrityError, DataError, ProgrammingError, NotSupportedError)
_MOST = 1 << 53
_INTERRUPTED = "the worker that served it died"


class StoreDown(Exception):
    """The database is away or locked; nothing of the batch was written."""


class Store:
    """Owned by one thread; keeps one connection open."""

    def __init__(self, engine: Engine, worker_id: str, prices: Mapping[str, Price]) -> None:
        self._engine, self._worker_id, self._prices = engine, worker_id, prices
        self._connection: Connection | None = None
        insert = _INSERTS[engine.dialect.name]
        statements: dict[Any, Any] = {
            Started: insert(tables.interceptions).on_conflict_do_nothing(),
            Prompt: insert(tables.user_prompts).on_conflict_do_nothing(),
            Answered: _update(tables.user_prompts.c.interception_id, provider_response_id="answer"),
            TokenUse: _upsert(insert, tables.token_usages),
            ToolUse: _upsert(insert, tables.tool_usages),
            ModelThought: _upsert(insert, tables.model_thoughts),
            Ended: _update(tables.interceptions.c.id, **{name: f"new_{name}" for name in _END}),
            TokenUsed: _update(tables.gateway_tokens.c.id, last_used_at="moment"),
            tables.workers: _upsert(insert, tables.workers),
        }
        self._statements = {key: Statement(made, engine.dialect) for key, made in statements.items()}

    def write(self, events: Iterable[Event]) -> None:
        """All of them or none; raises StoreDown, and SQLAlchemyError on what it will never take."""
        rows: dict[type, list[dict[str, Any]]] = {kind: [] for kind in EVENTS}
        for event in events:
            row = row_of(event)
            if isinstance(event, Ended):
                row["new_cost_micros"] = self._cost(event)
            rows[type(event)].append(row)
        with self._transaction() as connection:
            self._write(connection, rows)

    def write_each(self, events: list[Event]) -> bool:
        """Together if that can be, else one by one; false if one of them is bad. Raises StoreDown."""
        try:
            self.write(events)
        except SQLAlchemyError as error:
            if len(events) > 1:
                taken = [self.write_each([event]) for event in events]
                return all(taken)
            _log.error("a record could not be written: %s", type(error).__name__)
            return False
        return True

    def renew(self, worker_id: str, host: str, moment: datetime) -> None:
        """The worker lives. Raises StoreDown."""
        row = {"id": worker_id, "host": host, "seen_at": moment}
        with self._transaction() as connection:
            self._statements[tables.workers].run(connection, [row])

    def absent(self, since: datetime) -> list[str]:
        """Workers that were not seen since then. Raises StoreDown."""
        c = tables.workers.c
        with self._transaction() as connection:
            return list(connection.scalars(sa.select(c.id).where(c.seen_at < since)))

    def interrupt(self, worker_id: str, moment: datetime) -> int:
        """Closes what a dead worker left open; gives how many. Raises StoreDown."""
        c = tables.interceptions.c
        closing = sa.update(tables.interceptions).where(c.worker_id == worker_id, c.ended_at.is_(None))
        values = {"ended_at": moment, "error_type": "interrupted", "error_message": _INTERRUPTED}
        with self._transaction() as connection:
            count = connection.execute(closing.values(values)).rowcount
            connection.execute(sa.delete(tables.workers).where(tables.workers.c.id == worker_id))
        return count

    def forget(self, worker_id: str) -> None:
        """The worker ends in good order. Raises StoreDown."""
        with self._transaction() as connection:
            connection.execute(sa.delete(tables.workers).where(tables.workers.c.id == worker_id))

    def close(self) -> None:
        """Ends the connection; the next write opens another."""
        if self._connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                self._connection.close()
            self._connection = None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """One transaction; translates what the driver raises when the database is away."""
        try:
            connection = self._open()
            with connection.begin():
                yield connection
        except DBAPIError as error:
            self.close()
            if isinstance(error, _BAD):
                raise
            raise StoreDown(type(error.orig).__name__) from None
        except SQLAlchemyError:
            self.close()
            raise

    def _cost(self, event: Ended) -> int | None:
        if event.usage == Usage():
            return None
        try:
            cost = cost_micros(event.usage, event.models, self._prices)
        except (ArithmeticError, ValueError):  # counts that no model ever has
            return None
        return cost if UNKNOWN < cost < _MOST else None

    def _open(self) -> Connection:
        if self._connection is None:
            self._connection = self._engine.connect().execution_options(writes=True)
        return self._connection

    def _write(self, connection: Connection, rows: Mapping[type, list[dict[str, Any]]]) -> None:
        for row in rows[Started]:
            row["worker_id"] = self._worker_id
        for kind in EVENTS:
            if rows[kind]:
                self._statements[kind].run(connection, rows[kind])
        for row in rows[Started]:
            if row["correlating_tool_call_id"]:
                _place_in_thread(connection, row)


def _place_in_thread(connection: Connection, row: Mapping[str, Any]) -> None:
    """The interception in which the model asked for the tool whose result this one carries is its
    parent; the newest, where a conversation was forked or replayed."""
    parent = connection.execute(_PARENT, row).first()
    if parent is not None:
        c = tables.interceptions.c
        root = parent.thread_root_id or parent.id
        placing = sa.update(tables.interceptions).where(c.id == row["id"])
        connection.execute(placing.values(thread_parent_id=parent.id, thread_root_id=root))


_PARENT = (
    sa.select(tables.interceptions.c.id, tables.interceptions.c.thread_root_id)
    .join(tables.tool_usages)
    .where(
        tables.tool_usages.c.tool_call_id == sa.bindparam("correlating_tool_call_id"),
        tables.interceptions.c.initiator_id == sa.bindparam("initiator_id"),
        tables.interceptions.c.id != sa.bindparam("id"),
        tables.interceptions.c.started_at <= sa.bindparam("started_at"),
    )
    .order_by(tables.interceptions.c.started_at.desc())
    .limit(1)
)


def _upsert(insert: Any, table: Table) -> Any:
    statement = insert(table)
    keys = [column.name for column in table.primary_key]
    fresh = {c.name: statement.excluded[c.name] for c in table.columns if c.name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=fresh)


def _update(key: Column[Any], **parameters: str) -> Any:
    """Sets columns of the row whose `key` is `which`, each from the parameter named beside it."""
    values: dict[Any, Any] = {name: sa.bindparam(parameter) for name, parameter in parameters.items()}
    return sa.update(key.table).where(key == sa.bindparam("which")).values(values)


_END = ("ended_at", "status_code", "first_byte_at", "error_type", "error_message",
        "wire_exact", "response_sha256", "cost_micros")  # fmt: skip
