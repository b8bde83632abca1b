"""Writes events into the tables, a batch in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from ..config.settings import Price
from ..model import Usage
from . import tables
from .events import Ended, Event, ModelThought, Prompt, Started, TokenUse, TokenUsed, ToolUse
from .prices import UNKNOWN, cost_micros

_EPOCH_YEAR = 1971
_INSERTS: Mapping[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_AWAY = (OperationalError, InterfaceError)
_ORDER = (Started, Prompt, TokenUse, ToolUse, ModelThought, Ended, TokenUsed)


class StoreDown(Exception):
    """The database is away or locked; nothing of the batch was written."""


class Store:
    """Owned by one thread; keeps one connection open."""

    def __init__(self, engine: Engine, worker_id: str, prices: Mapping[str, Price]) -> None:
        self._engine, self._worker_id, self._prices = engine, worker_id, prices
        self._connection: Connection | None = None
        insert = _INSERTS[engine.dialect.name]
        self._statements = {
            Started: insert(tables.interceptions).on_conflict_do_nothing(),
            Prompt: _upsert(insert, tables.user_prompts),
            TokenUse: _upsert(insert, tables.token_usages),
            ToolUse: _upsert(insert, tables.tool_usages),
            ModelThought: _upsert(insert, tables.model_thoughts),
            Ended: _ending(),
            TokenUsed: _used(),
        }

    def write(self, events: Iterable[Event]) -> None:
        """All of them or none; raises StoreDown, and SQLAlchemyError on what it will never take."""
        rows: dict[type, list[dict[str, Any]]] = {kind: [] for kind in _ORDER}
        for event in events:
            row = _ROWS[type(event)](event)
            if isinstance(event, Ended):
                row["new_cost_micros"] = self._cost(event)
            rows[type(event)].append(row)
        try:
            connection = self._open()
            with connection.begin():
                self._write(connection, rows)
        except _AWAY as error:
            self.close()
            raise StoreDown(type(error).__name__) from None
        except SQLAlchemyError:
            self.close()
            raise

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _cost(self, event: Ended) -> int | None:
        if event.usage == Usage():
            return None
        cost = cost_micros(event.usage, event.models, self._prices)
        return cost if cost != UNKNOWN else None

    def _open(self) -> Connection:
        if self._connection is None:
            self._connection = self._engine.connect().execution_options(writes=True)
        return self._connection

    def _write(self, connection: Connection, rows: Mapping[type, list[dict[str, Any]]]) -> None:
        for kind in _ORDER:
            if not rows[kind]:
                continue
            if kind is Started:
                self._place_in_threads(connection, rows[kind])
            connection.execute(self._statements[kind], rows[kind])

    def _place_in_threads(self, connection: Connection, started: list[dict[str, Any]]) -> None:
        """The interception in which the model asked for the tool whose result this one carries
        is its parent; the newest, where a conversation was forked or replayed."""
        for row in started:
            row["worker_id"] = self._worker_id
            call = row["correlating_tool_call_id"]
            parent = connection.execute(_PARENT, {"call": call, **row}).first() if call else None
            row["thread_parent_id"] = parent.id if parent else None
            row["thread_root_id"] = (parent.thread_root_id or parent.id) if parent else None


_PARENT = (
    sa.select(tables.interceptions.c.id, tables.interceptions.c.thread_root_id)
    .join(tables.tool_usages)
    .where(
        tables.tool_usages.c.tool_call_id == sa.bindparam("call"),
        tables.interceptions.c.initiator_id == sa.bindparam("initiator_id"),
        tables.interceptions.c.id != sa.bindparam("id"),
    )
    .order_by(tables.interceptions.c.started_at.desc())
    .limit(1)
)


def _upsert(insert: Any, table: Table) -> Any:
    statement = insert(table)
    keys = [column.name for column in table.primary_key]
    fresh = {c.name: statement.excluded[c.name] for c in table.columns if c.name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=fresh)


def _ending() -> Any:
    names = ("ended_at", "status_code", "first_byte_at", "error_type", "error_message",
             "wire_exact", "response_sha256", "cost_micros")  # fmt: skip
    statement = sa.update(tables.interceptions)
    values: dict[Any, Any] = {name: sa.bindparam(f"new_{name}") for name in names}
    return statement.where(tables.interceptions.c.id == sa.bindparam("which")).values(values)


def _used() -> Any:
    c = tables.gateway_tokens.c
    return (
        sa.update(tables.gateway_tokens)
        .where(c.id == sa.bindparam("which"))
        .values(last_used_at=sa.bindparam("moment"))
    )


def clean(text: str) -> str:
    """Text that every database takes: no lone surrogates, no NUL.

    >>> clean("a\\ud800b\\0")
    'a?b\\ufffd'
    """
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def _started(event: Started) -> dict[str, Any]:
    row = {name: getattr(event, name) for name in event.__slots__}
    for name, value in row.items():
        if isinstance(value, str):
            row[name] = clean(value)
    row["metadata"] = {clean(key): clean(value) for key, value in event.metadata.items()}
    return row


def _prompt(event: Prompt) -> dict[str, Any]:
    return {
        "interception_id": event.interception_id,
        "provider_response_id": clean(event.provider_response_id),
        "prompt": clean(event.prompt),
        "created_at": event.created_at,
    }


def _tokens(event: TokenUse) -> dict[str, Any]:
    usage = event.usage
    return {
        "interception_id": event.interception_id,
        "turn": event.turn,
        "provider_response_id": clean(event.provider_response_id),
        "model": clean(event.model),
        "input_tokens": _bounded(usage.input_tokens),
        "output_tokens": _bounded(usage.output_tokens),
        "cache_read_input_tokens": _bounded(usage.cache_read_input_tokens),
        "cache_write_input_tokens": _bounded(usage.cache_write_input_tokens),
        "metadata": {clean(key): _bounded(count) for key, count in usage.metadata.items()},
        "created_at": event.created_at,
    }


def _tool(event: ToolUse) -> dict[str, Any]:
    row = {name: getattr(event, name) for name in event.__slots__}
    return {name: clean(value) if isinstance(value, str) else value for name, value in row.items()}


def _thought(event: ModelThought) -> dict[str, Any]:
    row = {name: getattr(event, name) for name in event.__slots__}
    return {**row, "content": clean(event.content)}


def _ended(event: Ended) -> dict[str, Any]:
    return {
        "which": event.id,
        "new_ended_at": event.ended_at,
        "new_status_code": event.status_code or None,
        "new_first_byte_at": _known(event.first_byte_at),
        "new_error_type": event.error_type,
        "new_error_message": clean(event.error_message),
        "new_wire_exact": event.wire_exact,
        "new_response_sha256": event.response_sha256,
    }


def _known(moment: datetime) -> datetime | None:
    return moment if moment.year >= _EPOCH_YEAR else None


def _bounded(count: int) -> int:
    """A count from an upstream that says anything still fits its column."""
    return max(0, min(count, (1 << 53) - 1))


_ROWS: Mapping[type, Any] = {
    Started: _started,
    Prompt: _prompt,
    TokenUse: _tokens,
    ToolUse: _tool,
    ModelThought: _thought,
    Ended: _ended,
    TokenUsed: lambda event: {"which": event.token_id, "moment": event.last_used_at},
}
