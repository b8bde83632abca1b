"""Sums by the hour and by the day: usage, the sessions that it was in, tools.

Only interceptions that have ended count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Dialect, Table

from .contributions import NOTHING, Change, Contribution
from .keys import day_id
from .sum_tables import (
    AMOUNTS,
    DAY_KEYS,
    DURATION_BUCKETS,
    FIRST_BYTE_BUCKETS,
    USAGE_KEYS,
    session_usage,
    tools_daily,
    tools_hourly,
    usage_daily,
    usage_hourly,
)
from .sums import Row, Sums

_BUCKETS = (*FIRST_BYTE_BUCKETS, *DURATION_BUCKETS)
_NO_BUCKETS = dict.fromkeys(_BUCKETS, 0)
_TOOL_AMOUNTS = ("calls", "failures", "duration_ms")
TABLES = {
    usage_hourly: ((*AMOUNTS, *_BUCKETS), "requests"),
    session_usage: (("requests",), "requests"),
    tools_hourly: (_TOOL_AMOUNTS, "calls"),
    usage_daily: ((*AMOUNTS, *_BUCKETS), "requests"),
    tools_daily: (_TOOL_AMOUNTS, "calls"),
}
"""The tables, each with its amounts, and the one without which a row is deleted."""


class Rollups:
    """A step."""

    def __init__(self, dialect: Dialect) -> None:
        self._sums = {table: Sums(dialect, table, *columns) for table, columns in TABLES.items()}

    def __call__(self, cursor: Any, changes: Sequence[Change]) -> None:
        new = [row for change in changes for row in added(change)]
        old = [row for change in changes for row in _taken(change)]
        for table, sums in self._sums.items():
            sums.add(cursor, (row for its_table, row in new if its_table is table))
            sums.take(cursor, (row for its_table, row in old if its_table is table))

    def correct(self, cursor: Any, table: Table, row: Row) -> None:
        """Adds what a row lacks, if the table is one of these."""
        if table in self._sums:
            self._sums[table].correct(cursor, row)


def added(change: Change) -> Iterator[tuple[Table, Row]]:
    """Yields what the tables' rows gain: where it has been in one before, the difference."""
    if not change.usage:
        return
    before = change.before if change.usage == change.old_usage else NOTHING
    keys = dict(zip(USAGE_KEYS, change.row.usage_keys, strict=True))
    yield usage_hourly, {"id": change.usage, **keys, **_difference(change.after, before)}
    if (change.old_session, change.old_usage) != (change.session, change.usage):
        yield session_usage, _session_row(change.session, change.usage)
    if _have_tools_changed(change):
        yield from _tool_rows(tools_hourly, change.usage, change.after)
    yield from _added_by_day(change)


def _taken(change: Change) -> Iterator[tuple[Table, Row]]:
    if not change.old_usage:
        return
    if change.old_usage != change.usage:
        yield usage_hourly, {"id": change.old_usage, **_difference(change.before, NOTHING)}
    if (change.old_session, change.old_usage) != (change.session, change.usage):
        yield session_usage, _session_row(change.old_session, change.old_usage)
    if _have_tools_changed(change):
        yield from _tool_rows(tools_hourly, change.old_usage, change.before)
    yield from _taken_by_day(change)


def _added_by_day(change: Change) -> Iterator[tuple[Table, Row]]:
    is_same = _is_same_day_row(change)
    id, keys = _day_row(change, change.after)
    yield usage_daily, {"id": id, **keys, **_difference(change.after, change.before if is_same else NOTHING)}
    if not is_same or change.before.tools != change.after.tools:
        yield from _tool_rows(tools_daily, id, change.after)


def _taken_by_day(change: Change) -> Iterator[tuple[Table, Row]]:
    is_same = _is_same_day_row(change)
    id, _ = _day_row(change, change.before)
    if not is_same:
        yield usage_daily, {"id": id, **_difference(change.before, NOTHING)}
    if not is_same or change.before.tools != change.after.tools:
        yield from _tool_rows(tools_daily, id, change.before)


def _is_same_day_row(change: Change) -> bool:
    """Whether it has been in the row of its day before: of that row's keys only the error may change."""
    has_both = change.old_usage != 0 and change.usage != 0
    return has_both and change.before.error_type == change.after.error_type


def _day_row(change: Change, contribution: Contribution) -> tuple[int, Row]:
    keys = change.row.day_keys(contribution.error_type)
    return day_id(*keys), dict(zip(DAY_KEYS, keys, strict=True))


def _have_tools_changed(change: Change) -> bool:
    return (change.old_usage, change.before.tools) != (change.usage, change.after.tools)


def _difference(after: Contribution, before: Contribution) -> Row:
    pairs = zip(AMOUNTS, after.amounts, before.amounts, strict=True)
    row = {name: more - less for name, more, less in pairs} | _NO_BUCKETS
    for contribution, count in ((after, 1), (before, -1)):
        if contribution.first_byte >= 0:
            row[FIRST_BYTE_BUCKETS[contribution.first_byte]] += count
        if contribution.duration >= 0:
            row[DURATION_BUCKETS[contribution.duration]] += count
    return row


def _session_row(session: int, usage: int) -> Row:
    return {"session_key": session, "usage_id": usage, "requests": 1}


def _tool_rows(table: Table, usage: int, contribution: Contribution) -> Iterator[tuple[Table, Row]]:
    for (tool, server_url, injected), counts in contribution.tools:
        keys = {"usage_id": usage, "tool": tool, "server_url": server_url, "injected": injected}
        yield table, keys | dict(zip(_TOOL_AMOUNTS, counts, strict=True))
