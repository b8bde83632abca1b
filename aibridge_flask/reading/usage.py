"""Questions for sums of usage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Engine, RowMapping

from ..model import Actor
from ..records.sum_tables import (
    AMOUNTS,
    DURATION_BUCKETS,
    DURATION_LIMITS,
    FIRST_BYTE_BUCKETS,
    FIRST_BYTE_LIMITS,
    usage_hourly,
)
from .connection import connected
from .grouping import grouped, sums_of
from .pages import Page, count_of
from .percentiles import percentile
from .periods import Period
from .search import Search
from .usage_rows import SUMMED, Scope, session_rows, usage_rows

Result = dict[str, Any]
PERCENTILES = {
    f"{name}_p{share}_ms": (buckets, limits, share / 100)
    for name, buckets, limits in (
        ("first_byte", FIRST_BYTE_BUCKETS, FIRST_BYTE_LIMITS),
        ("duration", DURATION_BUCKETS, DURATION_LIMITS),
    )
    for share in (50, 95)
}
ALL = Page(0)
_LONGEST_FOR_SESSIONS = timedelta(days=31)


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be summed up, and by what."""

    keys: tuple[str, ...] = ()
    search: Search = Search()
    period: Period = Period()

    def scope(self, actor: Actor, dialect: str) -> Scope:
        by_rows = self.search.needs_rows or "session" in self.keys
        return Scope(self.search, actor, self.period.within(self.search.period), dialect, by_rows)


def usage(engine: Engine, actor: Actor, question: Question, page: Page) -> Result:
    """Returns `{count, totals, results}`, ordered by cost."""
    scope = question.scope(actor, engine.dialect.name)
    with connected(engine) as connection:
        counts_sessions = _is_short(connection, scope)
        results = list(_results(connection, scope, question.keys, page, counts_sessions))
        (totals,) = _results(connection, scope, (), page, counts_sessions) if question.keys else results
        count = _count(connection, scope, question.keys, page, len(results))
    return {"count": count, "totals": totals, "results": results}


def every_usage(engine: Engine, actor: Actor, question: Question) -> Iterator[Result]:
    """Yields all results, without a bound."""
    scope = question.scope(actor, engine.dialect.name)
    with connected(engine) as connection:
        counts_sessions = _is_short(connection, scope)
        connection.execution_options(yield_per=1000)  # else all of them would be in memory
        yield from _results(connection, scope, question.keys, ALL, counts_sessions)


def _results(
    connection: Connection, scope: Scope, keys: Sequence[str], page: Page, counts_sessions: bool
) -> Iterator[Result]:
    rows = usage_rows(scope)
    query = grouped(rows, keys, scope.dialect, sums_of(SUMMED))
    sessions = _sessions(connection, scope, keys) if counts_sessions else {}
    for row in connection.execute(_paged(query, keys, page)).mappings():
        key = tuple(row[name] for name in keys)
        known = sessions.get(key, 0) if counts_sessions else None
        yield {**dict(zip(keys, key, strict=True)), **_amounts(row, known)}


def _paged(query: sa.Select[Any], keys: Sequence[str], page: Page) -> sa.Select[Any]:
    if not keys:
        return query
    ordered = query.order_by(sa.desc("cost_micros"), sa.desc("requests"), *map(sa.column, keys))
    return ordered if page is ALL else ordered.limit(page.limit).offset(page.offset)


def _amounts(row: RowMapping, sessions: int | None) -> Result:
    amounts = {name: row[name] for name in AMOUNTS}
    percentiles = {
        name: percentile([row[bucket] for bucket in buckets], limits, share)
        for name, (buckets, limits, share) in PERCENTILES.items()
    }
    return {**amounts, "sessions": sessions, **percentiles}


def _sessions(connection: Connection, scope: Scope, keys: Sequence[str]) -> Mapping[tuple[Any, ...], int]:
    """Returns the number of different sessions, by the values of the keys."""
    rows = session_rows(scope)
    query = grouped(rows, keys, scope.dialect, _different_sessions)
    return {tuple(row[:-1]): row[-1] for row in connection.execute(query)}


def _different_sessions(columns: Any) -> Sequence[ColumnElement[Any]]:
    return [sa.func.count(columns.session_key.distinct())]


def _count(connection: Connection, scope: Scope, keys: Sequence[str], page: Page, found: int) -> int:
    """Returns the number of results of all pages, and asks for it only where it is not seen."""
    if found < page.limit and (found or not page.offset):
        return page.offset + found
    rows = usage_rows(scope)
    return count_of(connection, grouped(rows, keys, scope.dialect, lambda columns: [sa.literal(1)]))[0]


def _is_short(connection: Connection, scope: Scope) -> bool:
    """Whether the period is short enough to count different sessions."""
    hours = Period(scope.period.after, scope.period.before)
    limits = (sa.func.min(usage_hourly.c.hour), sa.func.max(usage_hourly.c.hour))
    first, last = connection.execute(sa.select(*limits).where(*scope.in_sums(hours))).one()
    begin, end = scope.period.after or (first,), scope.period.before or (last,)
    return begin[0] is None or end[0] is None or end[0] - begin[0] <= _LONGEST_FOR_SESSIONS
