"""Questions for interceptions. Each opens its own connection and blocks its thread."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection, Engine

from ..model import Actor
from ..records import tables
from .connection import connected
from .errors import BadQuestion, NotFound
from .narrowing import hours_of
from .pages import Listing, Page, before, count_and_page, listing
from .parts import with_parts
from .search import Condition, Search
from .values import encode

_c = tables.interceptions.c
_ORDER = (_c.started_at, _c.id)


def interceptions(engine: Engine, actor: Actor, search: Search, page: Page) -> Listing:
    """Returns a page of interceptions with their parts, newest first. Raises BadQuestion."""
    with connected(engine) as connection:
        query = sa.select(_c.id).where(*search.conditions(actor, engine.dialect.name))
        ordered = query.order_by(*(column.desc() for column in _ORDER))
        positions = [_position(connection, actor, page.after_id)] if page.after_id else []
        following = [ordered.where(before(_ORDER, position)) for position in positions]
        hours = hours_of(connection, search, actor)
        if hours is None:
            count, rows = count_and_page(connection, ordered, page, following)
        else:
            for started_at, _ in positions:
                hours = hours.until(started_at)
            count, rows = hours.count_and_page(connection, [ordered, *following][-1], page)
        ids = [id for (id,) in rows]
        return listing(count, ids, with_parts(connection, ids[: page.limit]), page.limit)


def interception(engine: Engine, actor: Actor, id: str) -> bytes:
    """Returns one interception, whole, as JSON. Raises NotFound."""
    with connected(engine) as connection:
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
