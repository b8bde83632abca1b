"""How many interceptions an index finds for a search: few are looked up, of many those that are wanted first
are found sooner by going through all in their order.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from ..records.contribution import MAIN
from ..records.tables import interceptions, tool_usages
from .search import Search

FEW = 30_000
"""To look so many up takes a tenth of a second. It is more than lists count."""

_LOOKED_UP = ("session_id", "text")  # always
_COUNTED = ("kind", "tool", "cost_above")


def are_few(connection: Connection, search: Search) -> bool:
    """Whether interceptions are to be looked up by one of the keys that no sum has."""
    terms = [term for term in search.terms if term[0] in _COUNTED]
    return any(map(search.values, _LOOKED_UP)) or any(_is_rare(connection, *term) for term in terms)


def _is_rare(connection: Connection, key: str, value: str) -> bool:
    if (key, value) == ("kind", MAIN):
        return False
    counted = sa.select(sa.func.count()).select_from(_found(connection, key, value).limit(FEW + 1).subquery())
    return connection.scalars(counted).one() <= FEW


def _found(connection: Connection, key: str, value: str) -> sa.Select[Any]:
    if key == "tool":
        c = tool_usages.c
        return sa.select(c.interception_id).where(c.tool == value).distinct()
    condition = Search(((key, value),)).of_rows(connection.dialect.name)
    return sa.select(sa.literal(1)).select_from(interceptions).where(*condition)
