"""Questions for gateway tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, RowMapping

from ..model import Actor
from ..records.tables import gateway_tokens
from .connection import Source, connected
from .errors import BadQuestion, NotFound
from .pages import Listing, Page, before, count_of, listing
from .search import Condition
from .values import json_value

Result = dict[str, Any]
_c = gateway_tokens.c
_ORDER = (_c.created_at, _c.id)
_SHOWN = [column for column in _c if column.name != "digest"]


def list_tokens(source: Source, actor: Actor, page: Page) -> Listing:
    """Returns a page of tokens without their text, newest first. Raises BadQuestion."""
    with connected(source) as connection:
        query = sa.select(*_SHOWN).where(*_visible_to(actor))
        count = count_of(connection, query)
        if page.after_id:
            query = query.where(_after(connection, actor, page.after_id))
        ordered = query.order_by(*(column.desc() for column in _ORDER))
        rows = connection.execute(ordered.limit(page.limit + 1).offset(page.offset)).mappings().all()
        return listing(count, [row["id"] for row in rows], map(_to_result, rows), page.limit)


def token(source: Source, actor: Actor, id: str) -> Result:
    """Returns a token without its text. Raises NotFound."""
    with connected(source) as connection:
        row = _find(connection, actor, _c.id == id.replace("\0", "\ufffd"))
    if row is None:
        raise NotFound("there is no such token")
    return _to_result(row)


def token_by_digest(source: Source, digest: str) -> Result:
    """Returns the token with this digest, without its text. Raises NotFound."""
    with connected(source) as connection:
        row = connection.execute(sa.select(*_SHOWN).where(_c.digest == digest)).mappings().first()
    if row is None:
        raise NotFound("there is no such token")
    return _to_result(row)


def _find(connection: Connection, actor: Actor, condition: Condition) -> RowMapping | None:
    query = sa.select(*_SHOWN).where(condition, *_visible_to(actor))
    return connection.execute(query).mappings().first()


def _after(connection: Connection, actor: Actor, id: str) -> Condition:
    row = None if "\0" in id else _find(connection, actor, _c.id == id)
    if row is None:
        raise BadQuestion("after_id", "there is no such token")
    return before(_ORDER, (row["created_at"], id))


def _visible_to(actor: Actor) -> list[Condition]:
    return [] if actor.admin else [_c.user == actor.id]


def _to_result(row: Mapping[Any, Any]) -> Result:
    return {**{name: json_value(value) for name, value in row.items()}, "groups": row["groups"] or []}
