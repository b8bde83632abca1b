"""What an interception has added to sums and limits: each change of it adds the new amounts minus the old
ones.

The amounts that were added stand in the interception's row, under whose lock they are compared. So a replay
adds nothing, and a later end, another usage or an interruption corrects what was added before.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from zlib import crc32

import msgspec
import sqlalchemy as sa
from sqlalchemy import Dialect, Table

from .contribution import INTERRUPTED, MAIN, NOTHING, UNKNOWN, Change, Contribution, Row
from .costs import UNPRICED_STATUSES
from .keys import session_key, usage_id
from .ledger import Ledger
from .rollups import Rollups
from .sessions import Sessions
from .statement import IDS, shared, together
from .sum_tables import COST_PARTS, DURATION_LIMITS, FIRST_BYTE_LIMITS, TOKENS
from .tables import interceptions


class Contributions:
    """Finds the changes of interceptions, and passes them to what sums them."""

    def __init__(self, dialect: Dialect, locks: bool = True) -> None:
        """`locks`: rows that are compared are to be updated."""
        self._sums, self._ledger = (Sessions(dialect), Rollups(dialect)), Ledger(dialect)
        parts = {"ids": IDS[dialect.name], "lock": _LOCKS[dialect.name] if locks else ""}
        self._rows, self._usages = _ROWS.format(**parts), _USAGES.format(**parts)
        self._tools = _TOOLS.format(**parts)
        self._store = shared(_STORE, dialect, joined=True)
        self._advance = _ADVANCE.format(mark="?" if dialect.positional else "%s")

    def update(self, cursor: Any, ids: Iterable[str]) -> None:
        """Compares the interceptions with what they have added, and adds the differences.

        Those that have ended and changed get a new `seq`.
        """
        changes = [change for change in self.compare(cursor, ids) if change.is_one]
        if not changes:
            return
        # from here on transactions wait for each other, so that none wait in a ring
        seq = self._next_numbers(cursor, len(changes))
        with together(cursor):
            self._store.run(cursor, [_stored(change, seq + index) for index, change in enumerate(changes)])
            for sums in self._sums:
                sums(cursor, changes)
        self._ledger(cursor, changes)

    def correct(self, cursor: Any, table: Table, row: Mapping[str, Any]) -> None:
        """Adds what a row of a table of sums lacks, and deletes it if nothing is left."""
        for sums in self._sums:
            sums.correct(cursor, table, row)

    def compare(self, cursor: Any, ids: Iterable[str]) -> Iterator[Change]:
        """Yields for each interception what it has added and what it adds."""
        ids = json.dumps(sorted(set(ids)))
        rows = [_row(values) for values in _fetch(cursor, self._rows, ids)]
        usages = {id: counts for id, *counts in _fetch(cursor, self._usages, ids)}
        tools: dict[str, list[Any]] = defaultdict(list)
        for id, tool, server_url, injected, *counts in _fetch(cursor, self._tools, ids):
            tools[id].append(((tool, server_url, bool(injected)), tuple(counts)))
        for row in rows:
            after = _contribution(row, usages.get(row.id, _NO_USAGE), tools[row.id])
            session = session_key(row.initiator_id, row.session_id)
            yield Change(
                row=row,
                before=_read(row.contributed),
                after=after,
                old_session=row.session_key or 0,
                old_usage=row.usage_id or 0,
                session=session,
                usage=usage_id(*row.usage_keys) if after.ended else 0,
            )

    def _next_numbers(self, cursor: Any, count: int) -> int:
        """Returns the first of so many numbers."""
        cursor.execute(self._advance, (count,))
        cursor.execute(_LAST_NUMBER)
        (last,) = cursor.fetchone()
        return int(last) - count + 1


def _row(values: Sequence[Any]) -> Row:
    members = list(values)
    for index in _TIMES:
        members[index] = members[index] and _time(members[index])
    return Row(*members)


def _contribution(row: Row, usage: Sequence[Any], tools: Sequence[Any]) -> Contribution:
    *tokens, cost, output, read, written, fees, saved = usage
    ended = row.ended_at is not None
    amounts = (
        1,
        int(row.error_type != ""),
        int(ended and row.cost_status in UNPRICED_STATUSES),
        *tokens,
        cost if row.cost_micros is None else row.cost_micros,
        *(output, read, written, fees, saved),
    )
    return Contribution(
        ended=int(ended),
        threads=int(row.thread_root_id is None and row.kind == MAIN),
        amounts=amounts,
        first_byte=_bucket(FIRST_BYTE_LIMITS, row.first_byte_ms),
        duration=_bucket(DURATION_LIMITS, row.duration_ms),
        tools=tuple(tools) if ended else (),
        error_type=row.error_type if ended else "",
        sent=int(ended and (row.attempts > 0 or row.error_type == INTERRUPTED)),
        end=crc32(f"{row.ended_at} {row.wire_exact} {row.response_sha256}".encode()) if ended else 0,
    )


def _bucket(limits: Sequence[int], milliseconds: float) -> int:
    return bisect_left(limits, milliseconds) if milliseconds > 0 else UNKNOWN


def _read(contributed: Any) -> Contribution:
    """Returns what was added, as it stands in the row: JSON, which some drivers have decoded."""
    if contributed is None:
        return NOTHING
    value = json.loads(contributed) if isinstance(contributed, str) else contributed
    return msgspec.convert(value, Contribution) if isinstance(value, list) else NOTHING


def _stored(change: Change, seq: int) -> Mapping[str, Any]:
    return {
        "which": change.row.id,
        "added": change.after,
        "session": change.session,
        "usage": change.usage or None,
        "number": seq if change.after.ended else None,
    }


def _time(value: Any) -> datetime:
    """Returns a time of a column; SQLite's are text without a zone."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    found: datetime = value
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _fetch(cursor: Any, query: str, ids: str) -> list[tuple[Any, ...]]:
    cursor.execute(query, (ids,))
    return list(cursor.fetchall())


def _sum(column: str) -> str:
    return f"CAST(coalesce(sum({column}), 0) AS BIGINT)"  # else PostgreSQL's sums are decimal numbers


_TIMES = tuple(map(Row.__struct_fields__.index, ("started_at", "ended_at")))
_SUMMED = (*TOKENS, "cost_micros", *COST_PARTS, "cache_saved_micros")
_NO_USAGE = (0,) * len(_SUMMED)
_LOCKS = {"sqlite": "", "postgresql": "FOR UPDATE OF interceptions"}
_ROWS = (
    f"SELECT {', '.join(Row.__struct_fields__[:-1])},"  # noqa: S608 - parts are constants
    " EXISTS (SELECT 1 FROM user_prompts WHERE interception_id = interceptions.id)"
    " FROM interceptions WHERE id IN ({ids}) ORDER BY id {lock}"
)
_USAGES = (
    f"SELECT interception_id, {', '.join(map(_sum, _SUMMED))} FROM token_usages"  # noqa: S608
    " WHERE interception_id IN ({ids}) GROUP BY interception_id"
)
_HAS_FAILED = "CASE WHEN invocation_error <> '' THEN 1 ELSE 0 END"
_TOOLS = (
    "SELECT interception_id, tool, server_url, injected, count(*),"  # noqa: S608
    f" {_sum(_HAS_FAILED)}, {_sum('duration_ms')} FROM tool_usages"
    " WHERE interception_id IN ({ids}) GROUP BY interception_id, tool, server_url, injected"
    " ORDER BY tool, server_url, injected"
)
_ADVANCE = (
    "INSERT INTO sequences (name, value) VALUES ('interceptions', {mark})"
    " ON CONFLICT (name) DO UPDATE SET value = sequences.value + excluded.value"
)
_LAST_NUMBER = "SELECT value FROM sequences WHERE name = 'interceptions'"
_STORE = (
    sa.update(interceptions)
    .where(interceptions.c.id == sa.bindparam("which"))
    .values(
        contributed=sa.bindparam("added", type_=sa.JSON),
        session_key=sa.bindparam("session"),
        usage_id=sa.bindparam("usage"),
        seq=sa.bindparam("number"),
    )
)
