"""All records of a person, as JSON values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, RowMapping, Table

from .rows import stored_name
from .slices import Slices
from .sum_tables import audit, group_sets
from .tables import (
    gateway_tokens,
    interceptions,
    model_thoughts,
    stored_objects,
    token_usages,
    tool_usages,
    user_prompts,
)

_PARTS = (token_usages, user_prompts, tool_usages, model_thoughts)
_INTERNAL = (
    *("contributed", "session_key", "usage_id", "seq", "worker_id", "group_set", "digest"),
    "estimated_input",
)
_SLICE = 100
_i = interceptions.c


def export(slices: Slices, actor_id: str) -> Iterator[Mapping[str, Any]]:
    """Yields a person's interceptions, the oldest first, tokens without secrets, stored objects, and the
    audit of what they did and what was done to them. Each has its `type`. Raises SQLAlchemyError, Stopped.
    """
    name = stored_name(actor_id)
    last: tuple[Any, ...] = ()
    while found := slices.read(partial(_interceptions, name, last)):
        yield from (value for _, value in found)
        last = found[-1][0]
    for kind, query in {
        "gateway_token": sa.select(gateway_tokens).where(gateway_tokens.c.user == name),
        "stored_object": sa.select(stored_objects).where(stored_objects.c.initiator_id == name),
        "audit": sa.select(audit).where(sa.or_(audit.c.actor_id == name, audit.c.target == name)),
    }.items():
        for row in slices.read(partial(_all, query)):
            yield {"type": kind, **_values(row)}


def _interceptions(
    name: str, last: tuple[Any, ...], connection: Connection
) -> list[tuple[tuple[Any, ...], Mapping[str, Any]]]:
    """Returns the next ones, each after its position."""
    query = sa.select(interceptions).where(_i.initiator_id == name).order_by(_i.started_at, _i.id)
    if last:
        query = query.where(sa.tuple_(_i.started_at, _i.id) > last)
    rows = _all(query.limit(_SLICE), connection)
    parts = {table.name: _by_id(connection, table, [row["id"] for row in rows]) for table in _PARTS}
    groups = _groups(connection, {row["group_set"] for row in rows})
    return [
        (
            (row["started_at"], row["id"]),
            {
                "type": "interception",
                **_values(row),
                "groups": groups[row["group_set"]],
                **{part: by_id[row["id"]] for part, by_id in parts.items()},
            },
        )
        for row in rows
    ]


def _by_id(connection: Connection, table: Table, ids: Sequence[str]) -> Mapping[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    query = sa.select(table).where(table.c.interception_id.in_(ids)).order_by(*table.primary_key)
    for row in _all(query, connection):
        values = _values(row)
        found[values.pop("interception_id")].append(values)
    return found


def _groups(connection: Connection, ids: set[str]) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    query = sa.select(group_sets).where(group_sets.c.id.in_(ids)).order_by(group_sets.c.name)
    for row in _all(query, connection):
        found[row["id"]].append(row["name"])
    return found


def _all(query: sa.Select[Any], connection: Connection) -> Sequence[RowMapping]:
    return connection.execute(query).mappings().all()


def _values(row: RowMapping) -> dict[str, Any]:
    return {name: _to_json(value) for name, value in row.items() if name not in _INTERNAL}


def _to_json(value: Any) -> Any:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value
