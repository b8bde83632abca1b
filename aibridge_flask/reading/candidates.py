"""How many interceptions an index finds for a search: few are looked up, of many those that are wanted first
are found sooner by going through all in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from ..records.contribution import MAIN
from ..records.tables import interceptions, tool_usages
from .pages import MAX_COUNT
from .search import Search, micros
from .text_search import with_text

FEW = 30_000
"""To look so many up takes a tenth of a second. It is more than lists count."""

FEW_OF_ALL = 100_000
"""The same where all people's interceptions would be gone through until enough are counted."""

FEW_TEXTS = MAX_COUNT
"""The same where nothing but a text is asked for: to go through the newest reads only an index then."""

_i, _t = interceptions.c, tool_usages.c
_LOOKED_UP = ("session_id", "kind")
_COUNTED = ("tool", "cost_above", "text")


def are_few(connection: Connection, search: Search, few: int) -> bool:
    """Whether interceptions are to be looked up by one of the keys that no sum has."""
    return any(_is_rare(connection, *term, few) for term in search.terms)


def are_counted(search: Search) -> bool:
    """Whether an index tells how many match: if they are not few, more than lists count."""
    return [key in _COUNTED for key, _ in search.terms] == [True]


def _is_rare(connection: Connection, key: str, value: str, few: int) -> bool:
    if key not in _COUNTED:
        return key in _LOOKED_UP and (key, value) != ("kind", MAIN)
    found = _FOUND[key](value, connection.dialect.name).limit(few + 1).subquery()
    return connection.scalars(sa.select(sa.func.count()).select_from(found)).one() <= few


_FOUND: Mapping[str, Callable[[str, str], sa.Select[Any]]] = {
    "tool": lambda name, dialect: sa.select(_t.interception_id).where(_t.tool == name).distinct(),
    "cost_above": lambda value, dialect: sa.select(_i.cost_micros).where(_i.cost_micros > micros(value)),
    "text": lambda value, dialect: with_text(dialect, value),
}
