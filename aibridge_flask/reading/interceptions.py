"""Questions for interceptions. Each opens its own connection and blocks its thread."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from ..model import Actor
from ..records import tables
from .candidates import FEW, FEW_OF_ALL, FEW_TEXTS, are_counted, are_few
from .connection import Source, connected
from .errors import BadQuestion, NotFound
from .narrowing import steps_of
from .pages import MAX_COUNT, Listing, Page, before, count_and_page, listing
from .parts import with_parts
from .search import Condition, Search
from .values import encode

_c = tables.interceptions.c
_ORDER = (_c.started_at, _c.id)


def interceptions(source: Source, actor: Actor, search: Search, page: Page) -> Listing:
    """Returns a page of interceptions with their parts, newest first. Raises BadQuestion."""
    with connected(source) as connection:
        position = [_position(connection, actor, page.after_id)] if page.after_id else []
        count, rows = _found(connection, actor, search, page, position)
        ids = [id for (id,) in rows]
        return listing(count, ids, with_parts(connection, ids[: page.limit]), page.limit)


def _found(
    connection: Connection,
    actor: Actor,
    search: Search,
    page: Page,
    positions: Sequence[tuple[datetime, str]],
) -> tuple[tuple[int, bool], list[Any]]:
    """Returns the count of what matches, and the ids of a page and one more. `positions` has the row that the
    page begins after, if there is one."""
    walks = search.needs_rows and not are_few(connection, search, _few(search, actor, page))
    query = sa.select(_c.id).where(*search.conditions(actor, connection.dialect.name, walks))
    ordered = query.order_by(*(column.desc() for column in _ORDER))
    following = [ordered.where(before(_ORDER, position)) for position in positions]
    steps = steps_of(connection, search, actor)
    if steps is None:
        are_many = walks and actor.admin and are_counted(search)
        return count_and_page(connection, ordered, page, following, are_many)
    for query, (started_at, _) in zip(following, positions, strict=True):
        return steps.count, steps.page_after(connection, query, page, started_at)
    return steps.count, steps.page(connection, ordered, page)


def _few(search: Search, actor: Actor, page: Page) -> int:
    """Returns how many matches are looked up at most."""
    if not are_counted(search):
        return FEW_OF_ALL if actor.admin else FEW
    return FEW_TEXTS if search.values("text") and page.offset <= MAX_COUNT else FEW


def interception(source: Source, actor: Actor, id: str) -> bytes:
    """Returns one interception, whole, as JSON. Raises NotFound."""
    with connected(source) as connection:
        ids = connection.scalars(sa.select(_c.id).where(*_with_id(actor, id))).all()
        for result in with_parts(connection, ids, longest=0):
            return encode(result)
    raise NotFound("there is no such interception")


def _position(connection: Connection, actor: Actor, id: str) -> tuple[datetime, str]:
    """Returns where an interception stands in the order."""
    started_at = connection.scalar(sa.select(_c.started_at).where(*_with_id(actor, id)))
    if started_at is None:
        raise BadQuestion("after_id", "there is no such interception")
    return started_at, id


def _with_id(actor: Actor, id: str) -> list[Condition]:
    """PostgreSQL refuses a NUL, which no id has."""
    return [_c.id == id.replace("\0", "\ufffd"), *Search().keys(_c, actor)]
