"""Sums by the hour and by the day: usage, the sessions that it was in, tools.

Only interceptions that have ended count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Dialect, Table

from .contribution import Change, Contribution
from .contribution import Row as Interception
from .keys import day_id, usage_id
from .sum_tables import (
    AMOUNTS,
    DURATION_BUCKETS,
    FIRST_BYTE_BUCKETS,
    people_daily,
    session_usage,
    tools_daily,
    tools_hourly,
    totals_hourly,
    usage_daily,
    usage_hourly,
)
from .sums import Part, Sums

_USAGE = ((*AMOUNTS, *FIRST_BYTE_BUCKETS, *DURATION_BUCKETS), "requests")
_TOOL_AMOUNTS = ("calls", "failures", "duration_ms")
TABLES = {
    usage_hourly: _USAGE,
    session_usage: (("requests",), "requests"),
    tools_hourly: (_TOOL_AMOUNTS, "calls"),
    usage_daily: _USAGE,
    tools_daily: (_TOOL_AMOUNTS, "calls"),
    people_daily: _USAGE,
    totals_hourly: _USAGE,
}
"""The tables, each with its amounts, and the one without which a row is deleted."""


class Rollups:
    """A part of `Contributions`."""

    def __init__(self, dialect: Dialect) -> None:
        self._sums = {table: Sums(dialect, table, *columns) for table, columns in TABLES.items()}

    def __call__(self, cursor: Any, changes: Sequence[Change]) -> None:
        new = _by_table(
            part for each in changes for part in parts_of(each.row, each.after, each.session, each.usage)
        )
        old = _by_table(
            part
            for each in changes
            for part in parts_of(each.row, each.before, each.old_session, each.old_usage)
        )
        for table, sums in self._sums.items():
            sums.change(cursor, new[table], old[table])

    def correct(self, cursor: Any, table: Table, row: Mapping[str, Any]) -> None:
        """Adds what a row lacks, if the table is one of these."""
        if table in self._sums:
            self._sums[table].correct(cursor, row)


def parts_of(
    row: Interception, contribution: Contribution, session: int, usage: int
) -> Iterator[tuple[Table, Part]]:
    """Yields what this interception adds to each table; nothing if `usage` is 0: it has not ended."""
    if not usage:
        return
    buckets = _IN_FIRST_BYTE[contribution.first_byte] + _IN_DURATION[contribution.duration]
    amounts = contribution.amounts + buckets
    usage_keys, day_keys = row.usage_keys, row.day_keys(contribution.error_type)
    hour, day = usage_keys[0], day_id(*day_keys)
    # a person who is erased keeps its row until `ErasedSums` renames it
    person = (day_keys[0], row.initiator_id, row.group_set)
    yield usage_hourly, Part((usage,), amounts, usage_keys)
    yield session_usage, Part((session, usage), (1,))
    yield usage_daily, Part((day,), amounts, day_keys)
    yield people_daily, Part((day_id(*person),), amounts, person)
    yield totals_hourly, Part((usage_id(hour),), amounts, (hour,))
    for tool, counts in contribution.tools:
        yield tools_hourly, Part((usage, *tool), counts)
        yield tools_daily, Part((day, *tool), counts)


def _by_table(parts: Iterable[tuple[Table, Part]]) -> Mapping[Table, list[Part]]:
    found: dict[Table, list[Part]] = defaultdict(list)
    for table, part in parts:
        found[table].append(part)
    return found


def _counts_in(buckets: Sequence[str]) -> list[tuple[int, ...]]:
    """Returns what is counted in each bucket if one of them has one; last, for UNKNOWN, if none has."""
    size = len(buckets)
    return [tuple(int(place == bucket) for place in range(size)) for bucket in range(size + 1)]


_IN_FIRST_BYTE, _IN_DURATION = map(_counts_in, (FIRST_BYTE_BUCKETS, DURATION_BUCKETS))
