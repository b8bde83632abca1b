"""Questions for sums of usage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection

from ..model import Actor
from ..records.sum_tables import (
    AMOUNTS,
    DURATION_BUCKETS,
    DURATION_LIMITS,
    FIRST_BYTE_BUCKETS,
    FIRST_BYTE_LIMITS,
    usage_hourly,
)
from .connection import Source, connected
from .grouping import grouped, others_as_one, sums_of
from .pages import Page, count_and_page, count_of
from .percentiles import percentile
from .periods import Period
from .search import Search
from .usage_rows import SUMMED, Scope, session_rows, usage_rows

Result = dict[str, Any]
_FIRST_BYTE = slice(len(AMOUNTS), len(AMOUNTS) + len(FIRST_BYTE_BUCKETS))
_DURATION = slice(_FIRST_BYTE.stop, _FIRST_BYTE.stop + len(DURATION_BUCKETS))
_HISTOGRAMS = {
    f"{name}_p{share}_ms": (place, limits, share / 100)
    for name, place, limits in (
        ("first_byte", _FIRST_BYTE, FIRST_BYTE_LIMITS),
        ("duration", _DURATION, DURATION_LIMITS),
    )
    for share in (50, 95)
}
PERCENTILES = tuple(_HISTOGRAMS)
Sums = Sequence[int]

ALL = Page(0)
_LONGEST_FOR_SESSIONS = timedelta(days=31)
_UNPRICED, _MAX_MODELS = "unpriced_requests", 100


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be summed up, and by what."""

    keys: tuple[str, ...] = ()
    search: Search = Search()
    period: Period = Period()

    def scope(self, actor: Actor, dialect: str) -> Scope:
        period = self.period.within(self.search.period)
        return Scope(self.search, actor, period, dialect, self.keys)


def usage(source: Source, actor: Actor, question: Question, page: Page, with_sessions: bool = True) -> Result:
    """Returns `{count, totals, results}`, ordered by cost. Without sessions their number is null."""
    scope, keys = question.scope(actor, source.dialect.name), question.keys
    with connected(source) as connection:
        counts_sessions = with_sessions and _is_short(connection, scope)
        sessions = _sessions(connection, scope, keys) if counts_sessions else None
        count, rows, totals = _page(connection, scope, SUMMED, page)
        every = _sessions(connection, scope, ()) if counts_sessions and keys else sessions
    results = [_result(keys, row, sessions) for row in rows]
    return {"count": count, "totals": _result((), totals, every), "results": results}


def amounts(source: Source, actor: Actor, question: Question, page: Page) -> Result:
    """Returns the same without sessions and times."""
    scope = question.scope(actor, source.dialect.name)
    with connected(source) as connection:
        count, rows, totals = _page(connection, scope, AMOUNTS, page)
    names = (*question.keys, *AMOUNTS)
    results = [dict(zip(names, row, strict=True)) for row in rows]
    return {"count": count, "totals": dict(zip(AMOUNTS, totals, strict=True)), "results": results}


def usage_report(source: Source, actor: Actor, question: Question, page: Page) -> Result:
    """Returns `usage`, with `unpriced_models`."""
    with connected(source) as connection:
        found = usage(connection, actor, question, page)
        models = unpriced_models(connection, actor, question) if found["totals"][_UNPRICED] else []
    return {"count": found["count"], "totals": found["totals"], "unpriced_models": models, **found}


def sums(
    source: Source,
    actor: Actor,
    question: Question,
    names: Sequence[str] = AMOUNTS,
    kept: Sequence[str] = (),
) -> list[Result]:
    """Returns all results with these sums alone, in no order. `kept`: all other values of the last key are
    one, None; it may not be `group`.
    """
    scope = question.scope(actor, source.dialect.name)
    rows = usage_rows(scope, names)
    rows = others_as_one(rows, scope.keys[-1], kept) if kept else rows
    query = grouped(rows, scope.keys, scope.dialect, sums_of(names))
    with connected(source) as connection:
        results = connection.execute(query).all()
    return [dict(zip((*question.keys, *names), result, strict=True)) for result in results]


def unpriced_models(source: Source, actor: Actor, question: Question) -> list[str]:
    """Returns the models that were asked for and have no price, or not for all of it: the 100 with the most
    such requests."""
    scope = replace(question, keys=("model",)).scope(actor, source.dialect.name)
    query = _query(scope, (_UNPRICED,))
    unpriced: ColumnElement[int] = sa.column(_UNPRICED)
    query = sa.select(sa.column("model")).select_from(query.subquery()).where(unpriced > 0)
    with connected(source) as connection:
        return list(connection.scalars(query.order_by(unpriced.desc(), "model").limit(_MAX_MODELS)))


def count_results(source: Source, actor: Actor, question: Question) -> int:
    """Returns how many results there are, up to `MAX_COUNT`."""
    scope = question.scope(actor, source.dialect.name)
    with connected(source) as connection:
        rows = usage_rows(scope, ())
        query = grouped(rows, question.keys, scope.dialect, lambda columns: [sa.literal(1)])
        return count_of(connection, query)[0]


def every_usage(source: Source, actor: Actor, question: Question) -> Iterator[Result]:
    """Yields all results, without a bound."""
    scope, keys = question.scope(actor, source.dialect.name), question.keys
    with connected(source) as connection:
        sessions = _sessions(connection, scope, keys) if _is_short(connection, scope) else None
        for row in _streamed(connection, _ordered(scope, SUMMED)):
            yield _result(keys, row, sessions)


def every_amount(source: Source, actor: Actor, question: Question) -> Iterator[Result]:
    """Yields all results without sessions and times, without a bound."""
    scope = question.scope(actor, source.dialect.name)
    names = (*question.keys, *AMOUNTS)
    with connected(source) as connection:
        for row in _streamed(connection, _ordered(scope, AMOUNTS)):
            yield dict(zip(names, row, strict=True))


def _streamed(connection: Connection, query: sa.Select[Any]) -> Iterator[Sequence[Any]]:
    """Yields rows without having all of them in memory."""
    for rows in connection.execute(query, execution_options={"yield_per": 1000}).partitions():
        yield from rows


def _page(
    connection: Connection, scope: Scope, names: Sequence[str], page: Page
) -> tuple[int, Sequence[Sequence[Any]], Sums]:
    """Returns the number of all results, those of a page, and the totals of all."""
    (count, _), rows = count_and_page(connection, _ordered(scope, names), page, ())
    rows = rows[: page.limit]
    # what is on one page is added up here; by group a request may be in several rows
    is_whole = len(rows) == count and "group" not in scope.keys
    parts = rows if is_whole else connection.execute(_query(replace(scope, keys=()), names)).all()
    sums = zip(*(part[-len(names) :] for part in parts), strict=True)
    return count, rows, [sum(column) for column in sums] or [0] * len(names)


def _query(scope: Scope, names: Sequence[str]) -> sa.Select[Any]:
    return grouped(usage_rows(scope, names), scope.keys, scope.dialect, sums_of(names))


def _ordered(scope: Scope, names: Sequence[str]) -> sa.Select[Any]:
    query = _query(scope, names)
    order: tuple[Any, ...] = (sa.desc("cost_micros"), sa.desc("requests"), *map(sa.column, scope.keys))
    return query.order_by(*order) if scope.keys else query


def _result(
    keys: Sequence[str], row: Sequence[Any], sessions: Mapping[tuple[Any, ...], int] | None
) -> Result:
    """Returns a result of the values of the keys and the sums. `sessions` is None if they are not counted."""
    key, sums = tuple(row[: len(keys)]), row[len(keys) :]
    result = dict(zip((*keys, *AMOUNTS), row, strict=False))
    result["sessions"] = sessions.get(key, 0) if sessions is not None else None
    for name, (place, limits, share) in _HISTOGRAMS.items():
        result[name] = percentile(sums[place], limits, share)
    return result


def _sessions(connection: Connection, scope: Scope, keys: Sequence[str]) -> Mapping[tuple[Any, ...], int]:
    """Returns the number of different sessions, by the values of the keys."""
    rows = session_rows(scope)
    query = grouped(rows, keys, scope.dialect, _different_sessions)
    return {tuple(row[:-1]): row[-1] for row in connection.execute(query)}


def _different_sessions(columns: Any) -> Sequence[ColumnElement[Any]]:
    return [sa.func.count(columns.session_key.distinct())]


def _is_short(connection: Connection, scope: Scope) -> bool:
    """Whether the period is short enough to count different sessions."""
    hour = usage_hourly.c.hour
    begin = scope.period.after or _first(connection, scope, hour)
    end = scope.period.before or _first(connection, scope, hour.desc())
    return not begin or not end or end[0] - begin[0] <= _LONGEST_FOR_SESSIONS


def _first(connection: Connection, scope: Scope, order: ColumnElement[datetime]) -> tuple[datetime, ...]:
    """Returns the first hour with a sum, or ()."""
    query = sa.select(usage_hourly.c.hour).where(*scope.in_sums(usage_hourly, scope.period))
    return tuple(connection.scalars(query.order_by(order).limit(1)))
