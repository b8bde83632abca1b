"""Where sums of usage are read: from the coarsest that suffice, and interceptions where none does.

All sources have the same columns, so that they can be added up together: the keys, `at`, and what is summed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Column, ColumnElement, Table

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
    people_daily,
    session_usage,
    tools_daily,
    tools_hourly,
    totals_hourly,
    usage_daily,
    usage_hourly,
)
from ..records.tables import interceptions, token_usages, tool_usages
from .grouping import columns_of
from .periods import DAY, HOUR, Period
from .search import Condition, Search, is_running

SUMMED = (*AMOUNTS, *FIRST_BYTE_BUCKETS, *DURATION_BUCKETS)
TOOL_SUMS = ("calls", "failures", "duration_ms")
_OF_USAGES = (*TOKENS, *COST_PARTS, "cache_saved_micros")
_i, _u = interceptions.c, token_usages.c
Columns = Sequence[ColumnElement[Any]]
USAGE = (totals_hourly, people_daily, usage_daily, usage_hourly)
"""The tables of sums, those with the fewest rows first."""

_TOOLS = {usage_daily: tools_daily, usage_hourly: tools_hourly}
_STEPS = {"hour": HOUR, "day": DAY}
_AT = "at"

SESSION_ID = sa.case(
    (_i.client_session_id != "", _i.client_session_id), else_=sa.func.coalesce(_i.thread_root_id, _i.id)
)


@dataclass(frozen=True, slots=True)
class Scope:
    """What is summed up, and by which keys."""

    search: Search
    actor: Actor
    period: Period
    dialect: str
    keys: tuple[str, ...] = ()

    @property
    def by_rows(self) -> bool:
        """Whether interceptions are read for the whole period."""
        return self.search.needs_rows or "session" in self.keys

    def sums(self, sources: Sequence[Table] = USAGE) -> Iterator[tuple[Table, Period]]:
        """Yields the tables of sums that are read, each with its part of the period."""
        periods = [self.period]
        for table in () if self.by_rows else filter(self._suffices, sources):
            step = _STEPS[time_of(table).name]
            yield from ((table, whole) for period in periods for whole in period.whole(step))
            periods = [edge for period in periods for edge in period.edges(step)]

    def in_sums(self, table: Table, period: Period) -> list[Condition]:
        """Returns the conditions on a table of sums."""
        return [*self.search.keys(table.c, self.actor), *period.conditions(time_of(table))]

    def in_rows(self) -> Iterator[list[Condition]]:
        """Yields, for each part of the period that is not read from sums, the conditions on interceptions."""
        for period in [self.period] if self.by_rows else self.period.edges():
            conditions = self.search.conditions(self.actor, self.dialect)
            yield [*conditions, *period.conditions(_i.started_at), _i.ended_at.is_not(None)]

    def _suffices(self, table: Table) -> bool:
        """Whether it tells the keys of the question and of the search apart."""
        needed = {*columns_of(self.keys), *self.search.columns(self.actor)} - {_AT}
        return needed <= set(table.c.keys()) and ("hour" not in self.keys or "hour" in table.c)


def time_of(table: Table) -> Column[Any]:
    """Returns the column with the hour or the day of a table of sums."""
    return table.c["hour" if "hour" in table.c else "day"]


def usage_rows(scope: Scope, names: Sequence[str] = SUMMED) -> sa.Subquery:
    """Returns the rows to add up, with the sums of these names."""
    queries = [
        sa.select(*_summed_keys(scope, table), *(table.c[name] for name in names)).where(
            *scope.in_sums(table, part)
        )
        for table, part in scope.sums()
    ]
    for conditions in scope.in_rows():
        queries.append(sa.select(*_of_interceptions(scope, names, _REQUEST)).where(*conditions))
        with_tokens = sa.select(*_of_interceptions(scope, names, _TOKENS)).select_from(interceptions)
        queries.append(with_tokens.join(token_usages, _u.interception_id == _i.id).where(*conditions))
    return _together(queries)


def session_rows(scope: Scope) -> sa.Subquery:
    """Returns the rows whose different `session_key` are to be counted."""
    key = session_usage.c.session_key
    queries = [
        sa.select(*_summed_keys(scope, table), key)
        .select_from(table)
        .join(session_usage, session_usage.c.usage_id == table.c.id)
        .where(*scope.in_sums(table, hours))
        for table, hours in scope.sums([usage_hourly])
    ]
    queries += [sa.select(*_row_keys(scope), _i.session_key).where(*where) for where in scope.in_rows()]
    return _together(queries)


def key_rows(scope: Scope) -> sa.Subquery:
    """Returns the rows whose different keys are to be listed, with those of interceptions that have not
    ended."""
    queries = [
        sa.select(*_summed_keys(scope, table)).where(*scope.in_sums(table, part))
        for table, part in scope.sums()
    ]
    queries += [sa.select(*_row_keys(scope)).where(*conditions) for conditions in scope.in_rows()]
    conditions = scope.search.conditions(scope.actor, scope.dialect)
    queries.append(sa.select(*_row_keys(scope)).where(*conditions, is_running()))
    return _together(queries)


def tool_rows(scope: Scope) -> sa.Subquery:
    """Returns the rows of tools to add up, with `tool`, `server_url` and `injected`."""
    u, names = tool_usages.c, ("tool", "server_url", "injected")
    queries = [
        sa.select(*_summed_keys(scope, table), *(_TOOLS[table].c[name] for name in (*names, *TOOL_SUMS)))
        .select_from(table)
        .join(_TOOLS[table], _TOOLS[table].c.usage_id == table.c.id)
        .where(*scope.in_sums(table, part))
        for table, part in scope.sums(tuple(_TOOLS))
    ]
    counts = (
        sa.literal(1).label("calls"),
        sa.case((u.invocation_error != "", 1), else_=0).label("failures"),
        u.duration_ms,
    )
    queries += [
        sa.select(*_row_keys(scope), *(u[name] for name in names), *counts)
        .select_from(interceptions)
        .join(tool_usages, u.interception_id == _i.id)
        .where(*conditions)
        for conditions in scope.in_rows()
    ]
    return _together(queries)


def _together(queries: Sequence[sa.Select[Any]]) -> sa.Subquery:
    """Returns one table of all queries, which has the names of the first one's columns."""
    return (sa.union_all(*queries) if len(queries) > 1 else queries[0]).subquery()


def _summed_keys(scope: Scope, table: Table) -> Columns:
    """Returns what the keys of the question need of a table of sums."""
    return _keys(scope, {**table.c, _AT: time_of(table).label(_AT)})


def _row_keys(scope: Scope) -> Columns:
    """Returns the same of interceptions."""
    return _keys(scope, {**_i, _AT: _i.started_at.label(_AT), "session": SESSION_ID.label("session")})


def _keys(scope: Scope, columns: Mapping[str, ColumnElement[Any]]) -> Columns:
    return [columns[name] for name in columns_of(scope.keys)]


def _of_interceptions(scope: Scope, names: Sequence[str], amounts: dict[str, ColumnElement[Any]]) -> Columns:
    zero = sa.literal(0, sa.BigInteger)
    return [*_row_keys(scope), *(amounts.get(name, zero).label(name) for name in names)]


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
