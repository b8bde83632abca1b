"""Where sums of usage are read: by the day or the hour, and interceptions where these are too coarse.

All sources have the same columns, so that they can be added up together: the keys, `at`, and what is summed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement

from ..model import Actor
from ..records.costs import UNPRICED_STATUSES
from ..records.sum_tables import (
    AMOUNTS,
    COST_PARTS,
    DURATION_BUCKETS,
    DURATION_LIMITS,
    FIRST_BYTE_BUCKETS,
    FIRST_BYTE_LIMITS,
    TOKENS,
    USAGE_KEYS,
    session_usage,
    tools_daily,
    tools_hourly,
    usage_daily,
    usage_hourly,
)
from ..records.tables import interceptions, token_usages, tool_usages
from .periods import DAY, Period
from .search import Condition, Search

SUMMED = (*AMOUNTS, *FIRST_BYTE_BUCKETS, *DURATION_BUCKETS)
TOOL_SUMS = ("calls", "failures", "duration_ms")
_OF_USAGES = (*TOKENS, *COST_PARTS, "cache_saved_micros")
_KEYS = USAGE_KEYS[1:]
_i, _u = interceptions.c, token_usages.c
Columns = Sequence[ColumnElement[Any]]

SESSION_ID = sa.case(
    (_i.client_session_id != "", _i.client_session_id), else_=sa.func.coalesce(_i.thread_root_id, _i.id)
)


@dataclass(frozen=True, slots=True)
class Scope:
    """What is summed up. `by_rows`: interceptions are read for the whole period; `by_day`: sums by the day,
    for what they have of it."""

    search: Search
    actor: Actor
    period: Period
    dialect: str
    by_rows: bool = False
    by_day: bool = False

    @property
    def days(self) -> tuple[Period, ...]:
        """The part of the period that is read from sums by the day, or ()."""
        return self.period.whole(DAY) if self.by_day else ()

    @property
    def hours(self) -> tuple[Period, ...]:
        """The parts of the period that are read from sums by the hour."""
        if self.by_rows:
            return ()
        rest = self.period.edges(DAY) if self.by_day else [self.period]
        return tuple(hours for part in rest for hours in part.hours())

    @property
    def _row_periods(self) -> Sequence[Period]:
        return (self.period,) if self.by_rows else [*self.period.edges()]

    def in_sums(self, hours: Period) -> list[Condition]:
        """Returns the conditions on `usage_hourly`."""
        return [*self.search.keys(usage_hourly.c, self.actor), *hours.conditions(usage_hourly.c.hour)]

    def in_days(self, days: Period) -> list[Condition]:
        """Returns the conditions on `usage_daily`."""
        return [*self.search.keys(usage_daily.c, self.actor), *days.conditions(usage_daily.c.day)]

    def in_rows(self) -> Iterator[list[Condition]]:
        """Yields, for each part of the period that is not read from sums, the conditions on interceptions."""
        for period in self._row_periods:
            conditions = self.search.conditions(self.actor, self.dialect)
            yield [*conditions, *period.conditions(_i.started_at), _i.ended_at.is_not(None)]


def usage_rows(scope: Scope) -> sa.Subquery:
    """Returns the rows to add up."""
    queries = [_daily_usage(scope, days) for days in scope.days]
    queries += [_summed_usage(scope, hours) for hours in scope.hours]
    for conditions in scope.in_rows():
        queries.append(sa.select(*_of_interceptions(scope, _REQUEST)).where(*conditions))
        with_tokens = sa.select(*_of_interceptions(scope, _TOKENS))
        queries.append(with_tokens.join(token_usages, _u.interception_id == _i.id).where(*conditions))
    return _together(queries, (*_names(scope), *SUMMED))


def session_rows(scope: Scope) -> sa.Subquery:
    """Returns the rows whose different `session_key` are to be counted."""
    key = session_usage.c.session_key
    queries = [
        sa.select(*_summed_keys(scope), key)
        .join(session_usage, session_usage.c.usage_id == usage_hourly.c.id)
        .where(*scope.in_sums(hours))
        for hours in (() if scope.by_rows else scope.period.hours())
    ]
    queries += [sa.select(*_row_keys(scope), _i.session_key).where(*where) for where in scope.in_rows()]
    return _together(queries, (*_names(scope), "session_key"))


def key_rows(scope: Scope) -> sa.Subquery:
    """Returns the rows whose different keys are to be listed, with those of interceptions that have not
    ended."""
    queries = [sa.select(*_DAILY_KEYS).where(*scope.in_days(days)) for days in scope.days]
    queries += [sa.select(*_summed_keys(scope)).where(*scope.in_sums(hours)) for hours in scope.hours]
    queries += [sa.select(*_row_keys(scope)).where(*conditions) for conditions in scope.in_rows()]
    conditions = scope.search.conditions(scope.actor, scope.dialect)
    queries.append(sa.select(*_row_keys(scope)).where(*conditions, _i.ended_at.is_(None)))
    return _together(queries, _names(scope))


def tool_rows(scope: Scope) -> sa.Subquery:
    """Returns the rows of tools to add up, with `tool`, `server_url` and `injected`."""
    t, u = tools_hourly.c, tool_usages.c
    names = ("tool", "server_url", "injected")
    queries = [
        sa.select(*_DAILY_KEYS, *(tools_daily.c[name] for name in (*names, *TOOL_SUMS)))
        .join(tools_daily, tools_daily.c.usage_id == usage_daily.c.id)
        .where(*scope.in_days(days))
        for days in scope.days
    ]
    queries += [
        sa.select(*_summed_keys(scope), *(t[name] for name in (*names, *TOOL_SUMS)))
        .join(tools_hourly, t.usage_id == usage_hourly.c.id)
        .where(*scope.in_sums(hours))
        for hours in scope.hours
    ]
    counts = (sa.literal(1), sa.case((u.invocation_error != "", 1), else_=0), u.duration_ms)
    queries += [
        sa.select(*_row_keys(scope), *(u[name] for name in names), *counts)
        .join(tool_usages, u.interception_id == _i.id)
        .where(*conditions)
        for conditions in scope.in_rows()
    ]
    return _together(queries, (*_names(scope), *names, *TOOL_SUMS))


def _names(scope: Scope) -> Sequence[str]:
    return ("at", *_KEYS, *(("session",) if scope.by_rows else ()))


def _together(queries: Sequence[sa.Select[Any]], names: Sequence[str]) -> sa.Subquery:
    """Returns one table of all queries, whose columns get these names."""
    table = (sa.union_all(*queries) if len(queries) > 1 else queries[0]).subquery()
    columns = [column.label(name) for column, name in zip(table.c, names, strict=True)]
    return sa.select(*columns).subquery()


def _summed_keys(scope: Scope) -> Columns:
    return [usage_hourly.c.hour, *(usage_hourly.c[name] for name in _KEYS)]


def _summed_usage(scope: Scope, hours: Period) -> sa.Select[Any]:
    columns = [*_summed_keys(scope), *(usage_hourly.c[name] for name in SUMMED)]
    return sa.select(*columns).where(*scope.in_sums(hours))


def _daily_usage(scope: Scope, days: Period) -> sa.Select[Any]:
    columns = [*_DAILY_KEYS, *(usage_daily.c[name] for name in SUMMED)]
    return sa.select(*columns).where(*scope.in_days(days))


def _row_keys(scope: Scope) -> Columns:
    session = [SESSION_ID.label("session")] if scope.by_rows else []
    return [_i.started_at, *(_i[name] for name in _KEYS), *session]


def _of_interceptions(scope: Scope, amounts: dict[str, ColumnElement[Any]]) -> Columns:
    zero = sa.literal(0, sa.BigInteger)
    return [*_row_keys(scope), *(amounts.get(name, zero).label(name) for name in SUMMED)]


_NO_NAME = sa.literal("", sa.Text)
_DAILY_KEYS = [usage_daily.c.day, *(usage_daily.c.get(name, _NO_NAME).label(name) for name in _KEYS)]


def _is(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return sa.case((condition, 1), else_=0)


def _buckets(
    column: ColumnElement[Any], limits: Sequence[int], names: Sequence[str]
) -> dict[str, ColumnElement[Any]]:
    """Returns, by the bucket's name, 1 for the one that a time is in. A time of 0 is not known."""
    lower, upper = (0, *limits), (*limits, None)
    buckets = {}
    for name, low, high in zip(names, lower, upper, strict=True):
        buckets[name] = _is(sa.and_(column > low, sa.true() if high is None else column <= high))
    return buckets


# An interception counts once, its tokens once for each of its responses.
_REQUEST: dict[str, ColumnElement[Any]] = {
    "requests": sa.literal(1, sa.BigInteger),
    "errors": _is(_i.error_type != ""),
    "unpriced_requests": _is(_i.cost_status.in_(UNPRICED_STATUSES)),
    "cost_micros": sa.func.coalesce(_i.cost_micros, 0),
    **_buckets(_i.first_byte_ms, FIRST_BYTE_LIMITS, FIRST_BYTE_BUCKETS),
    **_buckets(_i.duration_ms, DURATION_LIMITS, DURATION_BUCKETS),
}
_TOKENS: dict[str, ColumnElement[Any]] = {
    **{name: _u[name] for name in _OF_USAGES},
    "cost_micros": sa.case((_i.cost_micros.is_(None), sa.func.coalesce(_u.cost_micros, 0)), else_=0),
}
