"""The rows and statements of events. Each may be applied repeatedly: they are upserts and updates by key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Column, Engine, Table

from ..config.settings import Price
from ..model import Usage
from . import tables
from .contributions import Contributions, Step
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
    StoredObject,
    TokenUsage,
    ToolUsage,
)
from .lineage import Lineage
from .prices import UNKNOWN, cost_micros
from .rows import to_row
from .statement import Statement

_MAX_COST = 1 << 53
Rows = Mapping[type, list[dict[str, Any]]]


class EventWriter:
    """Writes events on the driver's cursor, within a transaction of the caller."""

    def __init__(self, engine: Engine, prices: Mapping[str, Price], steps: Sequence[Step]) -> None:
        self._prices = prices
        dialect, insert = engine.dialect, import_module(f"sqlalchemy.dialects.{engine.dialect.name}").insert
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
            StoredObject: insert(tables.stored_objects).on_conflict_do_nothing(),
        }
        self._statements = {kind: Statement(statement, dialect) for kind, statement in statements.items()}
        self._lineage, self._contributions = Lineage(dialect), Contributions(dialect, steps)

    def rows(self, worker_id: str, events: Iterable[Event]) -> Rows:
        """Returns the rows of events by their type, without those that a later event replaces.

        `worker_id` is that of their log.
        """
        rows: dict[type, list[dict[str, Any]]] = {kind: [] for kind in EVENTS}
        for event in {_key(event): event for event in events}.values():
            row = to_row(event)
            if isinstance(event, Ended):
                row["new_cost_micros"] = self._cost(event)
            elif isinstance(event, Started):
                row["worker_id"] = worker_id
            rows[type(event)].append(row)
        return rows

    def write(self, cursor: Any, rows: Rows) -> None:
        """Writes the rows, links interceptions to threads, and updates sums."""
        self._lineage.lock(cursor, rows[Started], rows[ToolUsage])
        for kind in EVENTS:
            if rows[kind]:
                self._statements[kind].run(cursor, rows[kind])
        self._lineage.link(cursor, rows[Started], rows[ToolUsage])
        changed = [row["id"] for row in rows[Started]] + [row["which"] for row in rows[Ended]]
        self.update_sums(cursor, changed + [row["interception_id"] for row in rows[TokenUsage]])

    def _cost(self, event: Ended) -> int | None:
        parts = [part for part in event.parts if part[0] != Usage()]
        try:
            costs = [cost_micros(usage, models, self._prices) for usage, models in parts]
        except (ArithmeticError, ValueError):  # absurd counts
            return None
        cost = sum(costs) if costs and UNKNOWN not in costs else UNKNOWN
        return cost if UNKNOWN < cost < _MAX_COST else None

    def update_sums(self, cursor: Any, ids: Sequence[str]) -> None:
        """Adds what has changed of these interceptions to what sums them."""
        self._contributions.update(cursor, ids)


def _key(event: Event) -> tuple[Any, ...]:
    """Returns what events have in common that replace each other: their row."""
    return (type(event), *map(event.__getattribute__, _KEYS[type(event)]))


def _upsert(insert: Any, table: Table) -> Any:
    statement = insert(table)
    keys = [column.name for column in table.primary_key]
    new_values = {c.name: statement.excluded[c.name] for c in table.columns if c.name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=new_values)


def _update(key: Column[Any], **parameters: str) -> Any:
    """Returns an update of the row whose `key` is `which`. `parameters` maps columns to parameter names."""
    values: dict[Any, Any] = {name: sa.bindparam(parameter) for name, parameter in parameters.items()}
    return sa.update(key.table).where(key == sa.bindparam("which")).values(values)


_END_COLUMNS = ("ended_at", "status_code", "first_byte_at", "error_type", "error_message",
        "wire_exact", "response_sha256", "cost_micros")  # fmt: skip
_KEYS: Mapping[type, tuple[str, ...]] = {
    Started: ("id",),
    Prompt: ("interception_id",),
    PromptAnswered: ("interception_id",),
    CredentialUsed: ("interception_id",),
    TokenUsage: ("interception_id", "turn"),
    ToolUsage: ("interception_id", "turn", "position"),
    ModelThought: ("interception_id", "turn", "position"),
    Ended: ("id",),
    GatewayTokenUsed: ("token_id",),
    StoredObject: ("id", "provider_name", "initiator_id"),  # of two makers the first one counts
}
