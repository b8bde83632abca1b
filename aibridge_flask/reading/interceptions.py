"""Queries for interceptions. Each opens its own connection and blocks its thread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, RowMapping, Table

from ..model import Actor
from ..records import tables
from .search import Search

_PARTS: Mapping[str, Table] = {
    "token_usages": tables.token_usages,
    "user_prompts": tables.user_prompts,
    "tool_usages": tables.tool_usages,
    "model_thoughts": tables.model_thoughts,
}
_PRIVATE_COLUMNS = ("worker_id", "contributed", "profile", "interception_id", "position")


@dataclass(frozen=True, slots=True)
class Page:
    """A page, newest first. `after_id` is the last interception of the page before."""

    limit: int = 100
    offset: int = 0
    after_id: str = ""


def interceptions(engine: Engine, actor: Actor, search: Search, page: Page) -> dict[str, Any]:
    """Returns `{count, results}`: the number of matches, and the page's interceptions with their parts.

    Raises LookupError if `after_id` does not match, BadSearch.
    """
    c = tables.interceptions.c
    conditions = [*search.conditions(actor.id), *_visible_to(actor)]
    with engine.connect() as connection:
        count = connection.scalar(
            sa.select(sa.func.count()).select_from(tables.interceptions).where(*conditions)
        )
        if page.after_id:
            conditions.append(_after(connection, actor, page.after_id))
        rows = connection.execute(
            sa.select(tables.interceptions)
            .where(*conditions)
            .order_by(c.started_at.desc(), c.id.desc())
            .limit(page.limit)
            .offset(page.offset)
        ).mappings()
        results = [_to_result(row) for row in rows]
        _add_parts(connection, results)
    return {"count": count, "results": results}


def _visible_to(actor: Actor) -> list[sa.ColumnElement[bool]]:
    return [] if actor.admin else [tables.interceptions.c.initiator_id == actor.id]


def _after(connection: Connection, actor: Actor, id: str) -> sa.ColumnElement[bool]:
    c = tables.interceptions.c
    if "\0" in id:  # PostgreSQL refuses it
        raise LookupError(id)
    started_at = connection.scalar(sa.select(c.started_at).where(c.id == id, *_visible_to(actor)))
    if started_at is None:
        raise LookupError(id)
    return sa.or_(c.started_at < started_at, sa.and_(c.started_at == started_at, c.id < id))


def _to_result(row: RowMapping) -> dict[str, Any]:
    result = {name: _json_value(value) for name, value in row.items() if name not in _PRIVATE_COLUMNS}
    if "initiator_id" in result:
        username = result["metadata"].get("username", result["initiator_id"])
        result["initiator"] = {"id": result["initiator_id"], "username": username}
    return result


def _json_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return value


def _add_parts(connection: Connection, results: Iterable[dict[str, Any]]) -> None:
    by_id = {result["id"]: result for result in results}
    for name, table in _PARTS.items():
        for result in by_id.values():
            result[name] = []
        keys = list(table.primary_key)
        query = sa.select(table).where(table.c.interception_id.in_(by_id)).order_by(*keys)
        for row in connection.execute(query).mappings():
            part = _to_result(row)
            if name == "model_thoughts":
                part["metadata"] = {"source": part.pop("source")}
            by_id[row["interception_id"]][name].append(part)
