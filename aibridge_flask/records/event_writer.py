"""The rows and statements of events. Each may be applied repeatedly: they are upserts and updates by key."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import cache
from importlib import import_module
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Column, Engine, Table

from ..model import Usage
from ..pricing import PriceList
from . import sum_tables, tables, text_index
from .contributions import Contributions
from .costs import Costs
from .events import (
    EVENTS,
    CredentialUsed,
    Ended,
    Event,
    GatewayTokenUsed,
    Hold,
    ModelThought,
    Prompt,
    PromptAnswered,
    Started,
    StoredObject,
    TokenUsage,
    ToolUsage,
)
from .lineage import Lineage
from .rows import group_rows, hold_rows, to_row
from .statement import shared, together
from .tombstones import Tombstones

Rows = Mapping[Any, list[dict[str, Any]]]


class EventWriter:
    """Writes events on the driver's cursor, within a transaction of the caller."""

    def __init__(self, engine: Engine, prices: PriceList) -> None:
        self._prices = prices
        dialect = engine.dialect
        self._statements = {
            kind: shared(statement, dialect, joined=kind in _JOINED)
            for kind, statement in _statements(dialect.name).items()
        }
        self._has_word_index = dialect.name == "sqlite"  # of its own: PostgreSQL's is one as others
        self._lineage, self._tombstones = Lineage(dialect), Tombstones(dialect)
        self._contributions = Contributions(dialect)

    def rows(self, worker_id: str, events: Iterable[Event]) -> Rows:
        """Returns the rows of events by their type, without those that a later event replaces.

        `worker_id` is that of their log.
        """
        rows: dict[Any, list[dict[str, Any]]] = {kind: [] for kind in (*EVENTS, Hold, _GROUPS, _NOT_USED)}
        costs = Costs(self._prices)
        for event in {_key(event): event for event in events}.values():
            row = to_row(event)
            if isinstance(event, Ended):
                row |= costs.of_interception(event)
                if event.usage == Usage():
                    rows[_NOT_USED].append({"which": event.id})
            elif isinstance(event, TokenUsage):
                row |= costs.of_usage(event)
            elif isinstance(event, Started):
                row["worker_id"] = worker_id
                rows[_GROUPS] += group_rows(event)
                rows[Hold] += hold_rows(event, worker_id)
            rows[type(event)].append(row)
        return rows

    def write(self, cursor: Any, rows: Rows) -> None:
        """Writes the rows, links interceptions to threads, and updates sums."""
        rows = self._tombstones.without_erased(cursor, rows)
        self._lineage.lock(cursor, rows[Started], rows[ToolUsage])
        if self._has_word_index and rows[Prompt]:
            text_index.add_new(cursor, {row["interception_id"]: row["prompt"] for row in rows[Prompt]})
        with together(cursor):
            for kind, new in _join(rows).items():
                if new:
                    self._statements[kind].run(cursor, new)
        moved = self._lineage.link(cursor, rows[Started], rows[ToolUsage])
        changed = moved | {row["id"] for row in rows[Started]} | {row["which"] for row in rows[Ended]}
        changed |= {row["interception_id"] for kind in _SUMMED for row in rows[kind]}
        self.update_sums(cursor, changed)

    def update_sums(self, cursor: Any, ids: Collection[str]) -> None:
        """Adds what has changed of these interceptions to what sums them."""
        if ids:
            self._contributions.update(cursor, ids)


def _key(event: Event) -> tuple[Any, ...]:
    """Returns what events have in common that replace each other: their row."""
    return (type(event), *map(event.__getattribute__, _KEYS[type(event)]))


def _join(rows: Rows) -> Mapping[Any, list[dict[str, Any]]]:
    """Joins the rows of one slice that are parts of one row of a table: most requests are short.

    Returns them by the key of their statement, in the order in which they are written.
    """
    started, ended, whole = _pair(rows[Started], "id", rows[Ended], _END_PARAMETERS)
    prompts, answers, answered = _pair(
        rows[Prompt], "interception_id", rows[PromptAnswered], _ANSWER_PARAMETERS
    )
    over = {row["id"] for row in whole}
    held = [row for row in rows[Hold] if row["interception_id"] not in over]
    rest = {Started: started, Ended: ended, Prompt: prompts, PromptAnswered: answers, Hold: held}
    return {_WHOLE: whole, Started: started, _ANSWERED: answered, **rows, **rest}


def _pair(
    firsts: list[dict[str, Any]], key: str, lasts: list[dict[str, Any]], parameters: Mapping[str, str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns the rows without a partner, and the joined ones. `parameters` are those of the later rows."""
    by_id, alone, joined = {row["which"]: row for row in lasts}, [], []
    for first in firsts:
        last = by_id.pop(first[key], None)
        if last is None:
            alone.append(first)
        else:
            joined.append(first | {column: last[name] for column, name in parameters.items()})
    return alone, list(by_id.values()), joined


@cache
def _statements(dialect: str) -> Mapping[Any, Any]:
    """Returns what writes the rows of each kind."""
    insert = import_module(f"sqlalchemy.dialects.{dialect}").insert
    return {
        Started: insert(tables.interceptions).on_conflict_do_nothing(),
        Prompt: insert(tables.user_prompts).on_conflict_do_nothing(),
        PromptAnswered: _update(tables.user_prompts.c.interception_id, **_ANSWER_PARAMETERS),
        CredentialUsed: _update(tables.interceptions.c.id, credential_hint="hint"),
        TokenUsage: _upsert(insert, tables.token_usages),
        ToolUsage: _upsert(insert, tables.tool_usages),
        ModelThought: _upsert(insert, tables.model_thoughts),
        Ended: _update(tables.interceptions.c.id, **_END_PARAMETERS),
        GatewayTokenUsed: _update(tables.gateway_tokens.c.id, last_used_at="moment"),
        StoredObject: insert(tables.stored_objects).on_conflict_do_nothing(),
        Hold: _insert_hold(insert),
        _GROUPS: insert(sum_tables.group_sets).on_conflict_do_nothing(),
        _WHOLE: _upsert(insert, tables.interceptions, _END_PARAMETERS),
        _ANSWERED: _upsert(insert, tables.user_prompts, _ANSWER_PARAMETERS),
        _NOT_USED: sa.delete(tables.token_usages).where(*_IS_ESTIMATE),
    }


def _upsert(insert: Any, table: Table, columns: Iterable[str] = ()) -> Any:
    """Returns an insert that replaces `columns` of an existing row, or all of them."""
    statement = insert(table)
    keys = [column.name for column in table.primary_key]
    replaced = columns or [column.name for column in table.columns if column.name not in keys]
    new_values = {name: statement.excluded[name] for name in replaced}
    return statement.on_conflict_do_update(index_elements=keys, set_=new_values)


def _insert_hold(insert: Any) -> Any:
    """Returns the insert of a hold, unless its interception has ended: nothing would release it."""
    columns, c = sum_tables.holds.columns, tables.interceptions.c
    values = (sa.cast(sa.bindparam(column.name), column.type) for column in columns)
    under_way = (c.id == sa.bindparam("interception_id"), c.ended_at.is_(None))
    names = [column.name for column in columns]
    return (
        insert(sum_tables.holds)
        .from_select(names, sa.select(*values).where(*under_way))
        .on_conflict_do_nothing()
    )


def _update(key: Column[Any], **parameters: str) -> Any:
    """Returns an update of the row whose `key` is `which`. `parameters` maps columns to parameter names."""
    values: dict[Any, Any] = {name: sa.bindparam(parameter) for name, parameter in parameters.items()}
    return sa.update(key.table).where(key == sa.bindparam("which")).values(values)


_END_COLUMNS = ("ended_at", "status_code", "first_byte_at", "error_type", "error_message",
        "wire_exact", "response_sha256", "attempts", "overhead_ms", "first_byte_ms", "duration_ms",
        "limit_id", "cost_micros", "cost_status", "price_source", "price_version")  # fmt: skip
_END_PARAMETERS = {name: f"new_{name}" for name in _END_COLUMNS}
_ANSWER_PARAMETERS = {"provider_response_id": "answer"}
_GROUPS, _WHOLE, _ANSWERED = "groups", "whole interception", "answered prompt"
_NOT_USED = "an end without tokens"
_u = tables.token_usages.c
# The usage of one that was taken for interrupted, if the end that comes later tells none.
_IS_ESTIMATE = (
    _u.interception_id == sa.bindparam("which"),
    _u.turn == 0,
    _u.model == "",
    _u.output_tokens == 0,
)
_JOINED = (Started, TokenUsage, Ended, _WHOLE)
_SUMMED = (TokenUsage, ToolUsage, Prompt)
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
