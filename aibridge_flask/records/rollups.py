"""Sums by the hour and by the day: usage, the sessions that it was in, tools.

Only interceptions that have ended count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Dialect, Table

from .contribution import UNKNOWN, Change, Contribution
from .contribution import Row as Interception
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
    """A part of `Contributions`."""

    def __init__(self, dialect: Dialect) -> None:
        self._sums = {table: Sums(dialect, table, *columns) for table, columns in TABLES.items()}

    def __call__(self, cursor: Any, changes: Sequence[Change]) -> None:
        new = [row for each in changes for row in rows_of(each.row, each.after, each.session, each.usage)]
        old = [
            row
            for each in changes
            for row in rows_of(each.row, each.before, each.old_session, each.old_usage)
        ]
        for table, sums in self._sums.items():
            sums.change(
                cursor,
                (row for its_table, row in new if its_table is table),
                (row for its_table, row in old if its_table is table),
            )

    def correct(self, cursor: Any, table: Table, row: Mapping[str, Any]) -> None:
        """Adds what a row lacks, if the table is one of these."""
        if table in self._sums:
            self._sums[table].correct(cursor, row)


def rows_of(
    row: Interception, contribution: Contribution, session: int, usage: int
) -> Iterator[tuple[Table, Row]]:
    """Yields each table's row with this interception alone; none if `usage` is 0: it has not ended."""
    if not usage:
        return
    amounts, day_keys = _amounts(contribution), row.day_keys(contribution.error_type)
    day = day_id(*day_keys)
    yield usage_hourly, {"id": usage, **dict(zip(USAGE_KEYS, row.usage_keys, strict=True)), **amounts}
    yield session_usage, {"session_key": session, "usage_id": usage, "requests": 1}
    yield usage_daily, {"id": day, **dict(zip(DAY_KEYS, day_keys, strict=True)), **amounts}
    for table, id in ((tools_hourly, usage), (tools_daily, day)):
        yield from ((table, {"usage_id": id, **tool}) for tool in _tools(contribution))


def _amounts(contribution: Contribution) -> Row:
    amounts = dict(zip(AMOUNTS, contribution.amounts, strict=True)) | _NO_BUCKETS
    if contribution.first_byte != UNKNOWN:
        amounts[FIRST_BYTE_BUCKETS[contribution.first_byte]] = 1
    if contribution.duration != UNKNOWN:
        amounts[DURATION_BUCKETS[contribution.duration]] = 1
    return amounts


def _tools(contribution: Contribution) -> Iterator[Row]:
    for (tool, server_url, injected), counts in contribution.tools:
        keys = {"tool": tool, "server_url": server_url, "injected": injected}
        yield keys | dict(zip(_TOOL_AMOUNTS, counts, strict=True))
