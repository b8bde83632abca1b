"""Which sessions match a search: those with an interception that matches all of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection

from ..model import Actor
from ..records.sum_tables import session_usage, sessions, usage_hourly
from ..records.tables import interceptions
from .candidates import FEW_OF_ALL, are_few
from .pages import MAX_COUNT
from .periods import Period
from .search import Condition, Search, is_running

_s, _i, _u, _pair = sessions.c, interceptions.c, usage_hourly.c, session_usage.c
_SLICE = 1000
_IS_OF_SESSION = _i.session_key == _s.key
Keys = sa.Select[Any] | sa.CompoundSelect[Any]


@dataclass(frozen=True, slots=True)
class Match:
    """Conditions on sessions. `are_many`: more than `MAX_COUNT` are known to match."""

    conditions: Sequence[Condition]
    are_many: bool = False


def matching(connection: Connection, search: Search, actor: Actor, offset: int) -> Match:
    """Returns what is to be asked for. `offset`: so many are skipped.

    Of one person's sessions each is looked at. Of all, those that match are found first, where that costs
    less: if they are many, the last active ones are still found by looking at each.
    """
    dialect, period = connection.dialect.name, search.period
    own = [*_of_themselves(search, actor), *_in_reach(period)]
    rest = search.without("initiator").without("session_id")
    if not rest.has_sum_keys and not rest.needs_rows:
        return Match([*own, *_active(period)])
    are_all = actor.admin and not search.values("initiator") and not search.values("session_id")
    if rest.needs_rows:
        looked_at = _exists(_i.id, _IS_OF_SESSION, *rest.conditions(_ANY, dialect, walks=True))
        if not are_all or not are_few(connection, rest, FEW_OF_ALL):
            return Match([*own, looked_at])
        found: Keys = _of_rows(rest, actor, dialect)
    else:
        found = _with_sums(search.without("session_id"), actor, dialect)
        if not are_all:
            return Match([*own, _s.key.in_(found)])
        looked_at = _has_sums(rest, dialect)
    keys = _different(connection, found)
    if len(keys) <= MAX_COUNT:
        return Match([_is_one_of(keys)])
    if offset > MAX_COUNT:  # too many to look at each
        looked_at = _s.key.in_(found) if _are_more(connection, offset) else sa.false()
    return Match([*own, looked_at], True)


_ANY = Actor("", admin=True)
"""Whose interceptions are not to be told apart: a session has those of one actor."""


def visible_to(actor: Actor) -> list[Condition]:
    return [] if actor.admin else [_s.initiator_id == actor.id]


def _of_themselves(search: Search, actor: Actor) -> list[Condition]:
    wanted = [_s.initiator_id == (actor.id if id == "me" else id) for id in search.values("initiator")]
    return [*visible_to(actor), *wanted, *(_s.id == id for id in search.values("session_id"))]


def _in_reach(period: Period) -> list[Condition]:
    """Other sessions have no interception that started in the period."""
    started = [_s.started_at < moment for moment in period.before]
    return [*started, *(_s.last_active_at >= moment for moment in period.after)]


def _active(period: Period) -> list[Condition]:
    """The first interception of most of them started in the period."""
    has_row = _exists(_i.id, _IS_OF_SESSION, *period.conditions(_i.started_at))
    return [sa.or_(_s.started_at >= moment, has_row) for moment in period.after]


def _of_rows(search: Search, actor: Actor, dialect: str) -> sa.Select[Any]:
    """Returns the keys of sessions with an interception that matches."""
    return sa.select(_i.session_key).where(_i.session_key.is_not(None), *search.conditions(actor, dialect))


def _with_sums(search: Search, actor: Actor, dialect: str) -> sa.CompoundSelect[Any]:
    """Returns the keys of sessions that match by the sums of whole hours, or by rows beside them: those of
    the period's edges, and what is running."""
    # `+ 0` keeps SQLite from looking each pair's row up, instead of the pairs of each row that matches
    of_hours = sa.select(_pair.session_key).join(usage_hourly, _u.id + 0 == _pair.usage_id)
    summed = [
        of_hours.where(*search.keys(_u, actor), *hours.conditions(_u.hour)) for hours in search.period.hours()
    ]
    rows, beside = _of_rows(search, actor, dialect), [is_running(), *_edges(search.period)]
    return sa.union_all(*summed, *(rows.where(condition) for condition in beside))


def _has_sums(search: Search, dialect: str) -> Condition:
    """Returns the same as a condition on a session."""
    keys = (_pair.session_key == _s.key, _pair.usage_id == _u.id, *search.keys(_u, _ANY))
    summed = [_exists(_u.id, *keys, *part.conditions(_u.hour)) for part in search.period.hours()]
    row = (_IS_OF_SESSION, *search.conditions(_ANY, dialect))
    beside = [_i.ended_at.is_(None), *_edges(search.period)]
    return sa.or_(*summed, *(_exists(_i.id, *row, condition) for condition in beside))


def _exists(column: ColumnElement[Any], *conditions: Condition) -> Condition:
    """The offset keeps PostgreSQL from finding what matches of all sessions first."""
    return sa.exists(sa.select(column).where(*conditions).correlate(sessions).offset(0))


def _edges(period: Period) -> list[Condition]:
    return [sa.and_(*edge.conditions(_i.started_at)) for edge in period.edges()]


def _different(connection: Connection, found: Keys) -> Collection[int]:
    """Returns the different ones, and if they are more than `MAX_COUNT` not all: most are not read then."""
    keys: set[int] = set()
    with closing(connection.scalars(found, execution_options={"yield_per": _SLICE})) as rows:
        for some in rows.partitions():
            keys.update(some)
            if len(keys) > MAX_COUNT:
                break
    return keys


def _are_more(connection: Connection, count: int) -> bool:
    """Whether there are more sessions than that."""
    return connection.scalar(sa.select(_s.key).order_by(_s.last_active_at).offset(count).limit(1)) is not None


def _is_one_of(keys: Collection[int]) -> Condition:
    return _s.key.in_(sa.bindparam("keys", list(keys), expanding=True, literal_execute=True))
