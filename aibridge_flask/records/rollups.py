"""Sums by the hour: usage, the sessions that it was in, tools. Only interceptions that have ended count."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Dialect

from .contributions import NOTHING, Change, Contribution
from .sum_tables import (
    AMOUNTS,
    DURATION_BUCKETS,
    FIRST_BYTE_BUCKETS,
    USAGE_KEYS,
    session_usage,
    tools_hourly,
    usage_hourly,
)
from .sums import Row, Sums

_BUCKETS = (*FIRST_BYTE_BUCKETS, *DURATION_BUCKETS)
_NO_BUCKETS = dict.fromkeys(_BUCKETS, 0)
_TOOL_AMOUNTS = ("calls", "failures", "duration_ms")


class Rollups:
    """A step."""

    def __init__(self, dialect: Dialect) -> None:
        self._usage = Sums(dialect, usage_hourly, (*AMOUNTS, *_BUCKETS), "requests")
        self._sessions = Sums(dialect, session_usage, ("requests",), "requests")
        self._tools = Sums(dialect, tools_hourly, _TOOL_AMOUNTS, "calls")

    def __call__(self, cursor: Any, changes: Sequence[Change]) -> None:
        self._usage.add(cursor, (row for change in changes for row in _added_usage(change)))
        self._usage.take(cursor, (row for change in changes for row in _taken_usage(change)))
        moved = [change for change in changes if _pair_before(change) != _pair(change)]
        self._sessions.add(cursor, (_pair_row(_pair(change)) for change in moved if change.usage))
        self._sessions.take(cursor, (_pair_row(_pair_before(change)) for change in moved if change.old_usage))
        self._tools.add(cursor, (row for change in changes for row in _tool_rows(change.usage, change.after)))
        self._tools.take(
            cursor, (row for change in changes for row in _tool_rows(change.old_usage, change.before))
        )


def _added_usage(change: Change) -> Iterator[Row]:
    """Yields what its row gains: where it has been in it before, the difference."""
    if change.usage:
        before = change.before if change.usage == change.old_usage else NOTHING
        keys = dict(zip(USAGE_KEYS, change.row.usage_keys, strict=True))
        yield {"id": change.usage, **keys, **_difference(change.after, before)}


def _taken_usage(change: Change) -> Iterator[Row]:
    if change.old_usage not in (0, change.usage):
        yield {"id": change.old_usage, **_difference(change.before, NOTHING)}


def _difference(after: Contribution, before: Contribution) -> Row:
    pairs = zip(AMOUNTS, after.amounts, before.amounts, strict=True)
    row = {name: more - less for name, more, less in pairs} | _NO_BUCKETS
    for contribution, count in ((after, 1), (before, -1)):
        if contribution.first_byte >= 0:
            row[FIRST_BYTE_BUCKETS[contribution.first_byte]] += count
        if contribution.duration >= 0:
            row[DURATION_BUCKETS[contribution.duration]] += count
    return row


def _pair_before(change: Change) -> tuple[int, int]:
    return (change.old_session, change.old_usage) if change.old_usage else (0, 0)


def _pair(change: Change) -> tuple[int, int]:
    return (change.session, change.usage) if change.usage else (0, 0)


def _pair_row(pair: tuple[int, int]) -> Row:
    return {"session_key": pair[0], "usage_id": pair[1], "requests": 1}


def _tool_rows(usage: int, contribution: Contribution) -> Iterator[Row]:
    for (tool, server_url, injected), counts in contribution.tools:
        keys = {"usage_id": usage, "tool": tool, "server_url": server_url, "injected": injected}
        yield keys | dict(zip(_TOOL_AMOUNTS, counts, strict=True))
