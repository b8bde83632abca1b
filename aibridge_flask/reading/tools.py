"""Questions for sums of tool calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from ..model import Actor
from .connection import Source, connected
from .grouping import grouped, sums_of
from .pages import Page, count_of
from .usage import ALL, Question, Result
from .usage_rows import TOOL_SUMS, Scope, tool_rows

TOOL_KEYS = ("tool", "server_url", "injected")


def tools(source: Source, actor: Actor, question: Question, page: Page) -> Result:
    """Returns `{count, totals, results}`, by tool and server and the question's keys, ordered by calls."""
    scope, rows = _rows(source, actor, question)
    with connected(source) as connection:
        results = list(_results(connection, scope, rows, question.keys, page))
        query = grouped(rows, (), scope.dialect, sums_of(TOOL_SUMS))
        totals = dict(connection.execute(query).mappings().one())
        every = _grouped(scope, rows, question.keys)
        is_whole = not page.offset and len(results) < page.limit
        count = len(results) if is_whole else count_of(connection, every)[0]
    return {"count": count, "totals": totals, "results": results}


def most_used(source: Source, actor: Actor, question: Question, count: int) -> list[Result]:
    """Returns the first results of `tools`."""
    scope, rows = _rows(source, actor, question)
    with connected(source) as connection:
        return list(_results(connection, scope, rows, question.keys, Page(count)))


def every_tool(source: Source, actor: Actor, question: Question) -> Iterator[Result]:
    """Yields all results, without a bound."""
    scope, rows = _rows(source, actor, question)
    with connected(source) as connection:
        yield from _results(connection, scope, rows, question.keys, ALL)


def _rows(source: Source, actor: Actor, question: Question) -> tuple[Scope, sa.Subquery]:
    """The search's `tool` is that of a row, not one that its interception has used beside it."""
    names = question.search.values("tool")
    asked = replace(question, search=question.search.without("tool"))
    scope = asked.scope(actor, source.dialect.name)
    rows = tool_rows(scope)
    if names:
        rows = sa.select(rows).where(*(rows.c.tool == name for name in names)).subquery()
    return scope, rows


def _results(
    connection: Connection, scope: Scope, rows: sa.Subquery, keys: Sequence[str], page: Page
) -> Iterator[Result]:
    by = [*keys, *TOOL_KEYS]
    query = _grouped(scope, rows, keys).order_by(sa.desc("calls"), *map(sa.column, by))
    streamed, paged = query.execution_options(yield_per=1000), query.limit(page.limit).offset(page.offset)
    for row in connection.execute(streamed if page is ALL else paged).mappings():
        yield {**row, "injected": bool(row["injected"])}


def _grouped(scope: Scope, rows: sa.Subquery, keys: Sequence[str]) -> sa.Select[Any]:
    return grouped(rows, (*keys, *TOOL_KEYS), scope.dialect, sums_of(TOOL_SUMS))
