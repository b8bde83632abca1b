"""The search language of the records API: `key:value key:"quoted value"`.

>>> parse('provider:openai model:"gpt 5"').terms
(('provider', 'openai'), ('model', 'gpt 5'))
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement

from ..model import Actor
from ..records.contribution import MAIN
from ..records.sum_tables import group_sets
from ..records.tables import interceptions, tool_usages
from .errors import BadQuestion
from .periods import Period, parse_time
from .text_search import with_text

Condition = ColumnElement[bool]
_TERM = re.compile(r'\s*([A-Za-z_]+):(?:"([^"]*)"|([^\s"]\S*))(?=\s|$)')
_SUMMED = {
    "initiator": "initiator_id",
    "provider": "provider",
    "provider_name": "provider_name",
    "model": "model",
    "client": "client",
    "credential_kind": "credential_kind",
    "error_type": "error_type",
}
_TIMES = ("started_after", "started_before")
KEYS = (*_SUMMED, "group", "session_id", "kind", "tool", "cost_above", "text", *_TIMES)
_OF_ROWS = frozenset({"session_id", "kind", "tool", "cost_above", "text"})
"""Keys that no sum has."""

_MAX_TERMS = 50
_MICROS = 1_000_000
_MAX_MICROS = (1 << 63) - 1


class BadSearch(BadQuestion):
    """The text is not in the search language. The message says where."""

    def __init__(self, detail: str) -> None:
        super().__init__("q", detail)


@dataclass(frozen=True, slots=True)
class Search:
    """A parsed search: (key, value) pairs, all of which must match."""

    terms: tuple[tuple[str, str], ...] = ()

    @property
    def needs_rows(self) -> bool:
        """Whether a key is none of the sums'."""
        return any(key in _OF_ROWS for key, _ in self.terms)

    @property
    def has_sum_keys(self) -> bool:
        """Whether a key is one that sums have."""
        return any(key not in _OF_ROWS and key not in _TIMES for key, _ in self.terms)

    @property
    def period(self) -> Period:
        """The latest start and the earliest end that are asked for."""
        after, before = ([_time(key, value) for value in self.values(key)] for key in _TIMES)
        return Period(tuple(after), tuple(before)).narrowest()

    def keys(self, columns: Any, actor: Actor) -> list[Condition]:
        """Returns the conditions on what interceptions and sums both have, for the `columns` of either.

        They let an actor without admin rights see its own alone.
        """
        conditions = [
            _summed(columns, key, value, actor)
            for key, value in self.terms
            if key not in _OF_ROWS and key not in _TIMES
        ]
        return conditions if actor.admin else [columns.initiator_id == actor.id, *conditions]

    def columns(self, actor: Actor) -> set[str]:
        """Returns the columns that `keys` has conditions on."""
        names = {"group": "group_set", **_SUMMED}
        own = () if actor.admin else ("initiator_id",)
        return {*own, *(names[key] for key, _ in self.terms if key in names)}

    def values(self, key: str) -> list[str]:
        """Returns what is asked for under a key."""
        return [value for name, value in self.terms if name == key]

    def without(self, key: str) -> Search:
        """Returns the search without a key."""
        return Search(tuple(term for term in self.terms if term[0] != key))

    def conditions(self, actor: Actor, dialect: str, walks: bool = False) -> list[Condition]:
        """Returns the conditions on interceptions that the actor may see.

        `walks`: databases are kept from finding all that match by an index, since they are too many.
        """
        c, made = interceptions.c, _OF_WALKED if walks else _OF_ROW
        of_rows = [made[key](value, dialect) for key, value in self.terms if key in _OF_ROWS]
        return [*self.keys(c, actor), *self.period.conditions(c.started_at), *of_rows]


def parse(text: str) -> Search:
    """Parses a search. Raises BadSearch."""
    if "\0" in text:  # PostgreSQL refuses it
        raise BadSearch("a NUL character matches nothing")
    terms: list[tuple[str, str]] = []
    position = 0
    while position < len(text.rstrip()):
        match = _TERM.match(text, position)
        if match is None:
            raise BadSearch(f"not understood from position {position}: key:value is expected")
        key, quoted, plain = match.groups()
        if key not in KEYS:
            raise BadSearch(f"{key!r} is not a key: one of {', '.join(KEYS)} is expected")
        if len(terms) >= _MAX_TERMS:
            raise BadSearch(f"at most {_MAX_TERMS} terms are expected")
        terms.append((key, quoted if quoted is not None else plain))
        position = match.end()
    search = Search(tuple(terms))
    check(search)
    return search


def check(search: Search) -> None:
    """Raises BadSearch if a value is not of its key's kind."""
    for key, value in search.terms:
        if key in _TIMES:
            _time(key, value)
        if key == "cost_above":
            micros(value)


def _summed(columns: Any, key: str, value: str, actor: Actor) -> Condition:
    if key == "group":
        return in_group(columns.group_set, value)
    wanted = actor.id if key == "initiator" and value == "me" else value
    condition: Condition = columns[_SUMMED[key]] == wanted
    return condition


def is_running() -> Condition:
    """Returns the condition that interceptions have not ended.

    A query of its own, so that SQLite takes the index of these few, whatever else is asked of them.
    """
    running = interceptions.alias().c
    return interceptions.c.id.in_(sa.select(running.id).where(running.ended_at.is_(None)))


def in_group(group_set: ColumnElement[str], name: str) -> Condition:
    """Returns the condition that a set of groups has one; "" stands for the set of none."""
    if not name:
        return group_set == ""
    return group_set.in_(sa.select(group_sets.c.id).where(group_sets.c.name == name))


def _in_session(id: str, dialect: str) -> Condition:
    """A session's id is the client's, else its thread's root, else its own. Each is indexed."""
    c = interceptions.c
    has_no_client_id = c.client_session_id == ""
    return sa.or_(
        sa.and_(c.client_session_id == id, c.client_session_id != ""),
        sa.and_(has_no_client_id, c.thread_root_id == id),
        sa.and_(has_no_client_id, c.thread_root_id.is_(None), c.id == id),
    )


def _uses_tool(name: str, dialect: str) -> Condition:
    c = tool_usages.c
    return interceptions.c.id.in_(sa.select(c.interception_id).where(c.tool == name))


def _walked_uses_tool(name: str, dialect: str) -> Condition:
    c = tool_usages.c
    is_of_it = (c.interception_id == interceptions.c.id, c.tool == name)
    # the offset keeps PostgreSQL from finding all first
    return sa.exists(sa.select(c.tool).where(*is_of_it).correlate(interceptions).offset(0))


def _walked_has_text(value: str, dialect: str) -> Condition:
    """All ids that match are looked at, in memory: to look each of them up would take longer."""
    return interceptions.c.id.in_(with_text(dialect, value)).is_(sa.true())


def _costs_more(value: str, dialect: str) -> Condition:
    """A query of its own, so that SQLite takes its index, and not one that gives the order."""
    of_cost = interceptions.alias().c
    return interceptions.c.id.in_(sa.select(of_cost.id).where(of_cost.cost_micros > micros(value)))


def _is_of_kind(value: str, dialect: str) -> Condition:
    """All kinds but the main one have an index, in the order of time."""
    c = interceptions.c
    is_other = [] if value == MAIN else [c.kind != sa.literal_column(f"'{MAIN}'")]
    return sa.and_(c.kind == value, *is_other)


_OF_ROW: Mapping[str, Callable[[str, str], Condition]] = {
    "session_id": _in_session,
    "kind": _is_of_kind,
    "tool": _uses_tool,
    "cost_above": _costs_more,
    "text": lambda value, dialect: interceptions.c.id.in_(with_text(dialect, value)),
}
_OF_WALKED: Mapping[str, Callable[[str, str], Condition]] = {
    **_OF_ROW,
    "kind": lambda value, dialect: interceptions.c.kind == value,
    "tool": _walked_uses_tool,
    "text": _walked_has_text,
    "cost_above": lambda value, dialect: interceptions.c.cost_micros + 0 > micros(value),
}


def micros(value: str) -> int:
    """Returns US$ in millionths. Raises BadSearch."""
    try:
        micros = Decimal(value) * _MICROS
        return int(micros) if abs(micros) <= _MAX_MICROS else _MAX_MICROS
    except (ArithmeticError, ValueError):
        raise BadSearch("cost_above: a number of US$ such as 0.25 is expected") from None


def _time(key: str, value: str) -> datetime:
    try:
        return parse_time(key, value)
    except BadQuestion as error:
        raise BadSearch(f"{key}: {error.detail}") from None
