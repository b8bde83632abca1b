"""Writes events to the tables, one transaction per batch."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from importlib import import_module
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Column, Connection, Engine, Table
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ..config.settings import Price
from ..model import Usage
from . import tables
from .events import (
    EVENTS,
    CredentialUsed,
    Ended,
    Event,
    GatewayTokenUsed,
    ModelThought,
    Prompt,
    PromptAnswered,
    Started,
    TokenUsage,
    ToolUsage,
)
from .prices import UNKNOWN, cost_micros
from .rows import to_row
from .statement import Statement

_log = logging.getLogger("aibridge.records")
_ROW_ERRORS = ("IntegrityError", "DataError", "ProgrammingError", "NotSupportedError")
_MAX_COST = 1 << 53
_INTERRUPTED = "the worker that served it died"


class DatabaseDown(Exception):
    """The database is away or locked. Nothing of the batch was written."""


class RowsRejected(Exception):
    """The database rejects a row of the batch. Nothing of the batch was written."""


class Store:
    """Used by one thread; keeps one connection open."""

    def __init__(self, engine: Engine, worker_id: str, prices: Mapping[str, Price]) -> None:
        self._engine, self._worker_id, self._prices = engine, worker_id, prices
        self._connection: Connection | None = None
        driver: Any = engine.dialect.dbapi
        self._error = driver.Error
        self._row_errors = tuple(getattr(driver, name) for name in _ROW_ERRORS)
        self._begin = "BEGIN IMMEDIATE" if engine.dialect.name == "sqlite" else ""
        insert = import_module(f"sqlalchemy.dialects.{engine.dialect.name}").insert
        statements: dict[Any, Any] = {
            Started: insert(tables.interceptions).on_conflict_do_nothing(),
            Prompt: insert(tables.user_prompts).on_conflict_do_nothing(),
            PromptAnswered: _update(tables.user_prompts.c.interception_id, provider_response_id="answer"),
            CredentialUsed: _update(tables.interceptions.c.id, credential_hint="hint"),
            TokenUsage: _upsert(insert, tables.token_usages),
            ToolUsage: _upsert(insert, tables.tool_usages),
            ModelThought: _upsert(insert, tables.model_thoughts),
            Ended: _update(tables.interceptions.c.id, **{name: f"new_{name}" for name in _END_COLUMNS}),
            GatewayTokenUsed: _update(tables.gateway_tokens.c.id, last_used_at="moment"),
            _FIND_PARENT: _FIND_PARENT,
            _SET_THREAD: _SET_THREAD,
        }
        self._renewal = _upsert(insert, tables.workers)
        self._statements = {
            key: Statement(statement, engine.dialect) for key, statement in statements.items()
        }

    def write(self, events: Iterable[Event]) -> None:
        """Writes all events or none. Raises DatabaseDown, RowsRejected."""
        rows: dict[type, list[dict[str, Any]]] = {kind: [] for kind in EVENTS}
        for event in events:
            row = to_row(event)
            if isinstance(event, Ended):
                row["new_cost_micros"] = self._cost(event)
            rows[type(event)].append(row)
        with self._batch() as cursor:
            self._write(cursor, rows)

    def write_each(self, events: list[Event]) -> int:
        """Writes events together, else one by one. Returns how many were rejected. Raises DatabaseDown."""
        try:
            self.write(events)
        except RowsRejected as error:
            if len(events) > 1:
                return sum(self.write_each([event]) for event in events)
            _log.error("a record could not be written: %s", error)
            return 1
        return 0

    def renew(self, worker_id: str, host: str, moment: datetime) -> None:
        """Renews a worker's row. Raises DatabaseDown."""
        row = {"id": worker_id, "host": host, "seen_at": moment}
        with self._transaction() as connection:
            connection.execute(self._renewal, row)

    def expired_workers(self, since: datetime) -> list[str]:
        """Returns the ids of workers that were last seen before `since`. Raises DatabaseDown."""
        c = tables.workers.c
        with self._transaction() as connection:
            return list(connection.scalars(sa.select(c.id).where(c.seen_at < since)))

    def interrupt_worker(self, worker_id: str, moment: datetime) -> int:
        """Closes the open interceptions of a dead worker; returns how many. Raises DatabaseDown."""
        c = tables.interceptions.c
        closing = sa.update(tables.interceptions).where(c.worker_id == worker_id, c.ended_at.is_(None))
        values = {"ended_at": moment, "error_type": "interrupted", "error_message": _INTERRUPTED}
        with self._transaction() as connection:
            count = connection.execute(closing.values(values)).rowcount
            connection.execute(sa.delete(tables.workers).where(tables.workers.c.id == worker_id))
        return count

    def delete_worker(self, worker_id: str) -> None:
        """Deletes the row of a worker that ends. Raises DatabaseDown."""
        with self._transaction() as connection:
            connection.execute(sa.delete(tables.workers).where(tables.workers.c.id == worker_id))

    def close(self) -> None:
        """Closes the connection; the next write opens another."""
        if self._connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                self._connection.close()
            self._connection = None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """One transaction. Raises DatabaseDown."""
        try:
            connection = self._open()
            with connection.begin():
                yield connection
        except SQLAlchemyError as error:
            self.close()
            raise DatabaseDown(_driver_error(error)) from None

    @contextlib.contextmanager
    def _batch(self) -> Iterator[Any]:
        """One transaction on the driver's cursor. Raises DatabaseDown, RowsRejected."""
        try:
            driver: Any = self._open().connection.dbapi_connection
            cursor = driver.cursor()
            if self._begin:
                cursor.execute(self._begin)
            yield cursor
            driver.commit()
        except self._row_errors as error:
            self.close()
            raise RowsRejected(type(error).__name__) from None
        except (self._error, SQLAlchemyError) as error:
            self.close()
            raise DatabaseDown(_driver_error(error)) from None

    def _cost(self, event: Ended) -> int | None:
        parts = [part for part in event.parts if part[0] != Usage()]
        try:
            costs = [cost_micros(usage, models, self._prices) for usage, models in parts]
        except (ArithmeticError, ValueError):  # absurd counts
            return None
        cost = sum(costs) if costs and UNKNOWN not in costs else UNKNOWN
        return cost if UNKNOWN < cost < _MAX_COST else None

    def _open(self) -> Connection:
        if self._connection is None:
            self._connection = self._engine.connect().execution_options(writes=True)
        return self._connection

    def _write(self, cursor: Any, rows: Mapping[type, list[dict[str, Any]]]) -> None:
        for row in rows[Started]:
            row["worker_id"] = self._worker_id
        for kind in EVENTS:
            if rows[kind]:
                self._statements[kind].run(cursor, rows[kind])
        for row in rows[Started]:
            if row["correlating_tool_call_id"]:
                self._link_to_thread(cursor, row)

    def _link_to_thread(self, cursor: Any, row: Mapping[str, Any]) -> None:
        """Links an interception to the one in which the model called the tool whose result it carries.

        If a conversation was forked or replayed, the newest one is the parent.
        """
        thread = self._statements[_FIND_PARENT].first(cursor, row)
        if thread:
            parent, root = thread
            links = {"which": row["id"], "parent": parent, "root": root or parent}
            self._statements[_SET_THREAD].run(cursor, [links])


def _driver_error(error: Exception) -> str:
    """Returns the class name of the driver's error."""
    return type(error.orig if isinstance(error, DBAPIError) else error).__name__


_FIND_PARENT = (
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
    new_values = {c.name: statement.excluded[c.name] for c in table.columns if c.name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=new_values)


def _update(key: Column[Any], **parameters: str) -> Any:
    """Returns an update of the row whose `key` is `which`. `parameters` maps columns to parameter names."""
    values: dict[Any, Any] = {name: sa.bindparam(parameter) for name, parameter in parameters.items()}
    return sa.update(key.table).where(key == sa.bindparam("which")).values(values)


_SET_THREAD = _update(tables.interceptions.c.id, thread_parent_id="parent", thread_root_id="root")
_END_COLUMNS = ("ended_at", "status_code", "first_byte_at", "error_type", "error_message",
        "wire_exact", "response_sha256", "cost_micros")  # fmt: skip
