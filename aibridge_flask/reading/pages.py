"""Pages of lists: bounded in rows and bytes, with a count that never reads more than it must."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection

from .values import encode, encode_within

MAX_COUNT = 10_000
MAX_OFFSET = 100_000
_MAX_BYTES = (8 << 20) - 4096  # the rest is for what stands around the rows


@dataclass(frozen=True, slots=True)
class Page:
    """What is asked for. `after_id` is the last row of the page before, "" for the first page."""

    limit: int = 100
    offset: int = 0
    after_id: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of a list. `rows` are JSON. `next_after_id` is what the next page begins after, "" at the end.

    `count` is that of all pages, up to `MAX_COUNT`; `is_capped`: there are more.
    """

    count: int
    is_capped: bool
    rows: Sequence[bytes]
    next_after_id: str = ""

    def to_json(self, name: str = "results") -> bytes:
        """Returns the page as a JSON object, with the rows under `name`."""
        members = [b'"count":%d' % self.count, *([b'"count_capped":true'] if self.is_capped else ())]
        rows = b'"%s":[%s]' % (name.encode(), b",".join(self.rows))
        following = b'"next_after_id":' + encode(self.next_after_id or None)
        return b"{%s}" % b",".join([*members, rows, following])


def count_of(connection: Connection, query: sa.Select[Any]) -> tuple[int, bool]:
    """Returns how many rows a query has, up to `MAX_COUNT`, and whether there are more."""
    first = query.order_by(None).limit(MAX_COUNT + 1).subquery()
    count = connection.scalar(sa.select(sa.func.count()).select_from(first)) or 0
    return min(count, MAX_COUNT), count > MAX_COUNT


def count_and_page(
    connection: Connection,
    ordered: sa.Select[Any],
    page: Page,
    following: Sequence[sa.Select[Any]],
    are_many: bool = False,
) -> tuple[tuple[int, bool], list[Any]]:
    """Returns the count of an ordered query, and the rows of a page and one more.

    Both are read at once if the page is among the rows that are counted. `following` holds the query of what
    stands after the page before, if there was one. `are_many`: more than `MAX_COUNT`, and not to be counted.
    """
    paged = [ordered, *following][-1].limit(page.limit + 1).offset(page.offset)
    if are_many:
        return (MAX_COUNT, True), list(connection.execute(paged).all())
    last = page.offset + page.limit + 1
    if not following and last <= MAX_COUNT + 1:
        rows = connection.execute(ordered.limit(MAX_COUNT + 1)).all()
        return (min(len(rows), MAX_COUNT), len(rows) > MAX_COUNT), list(rows[page.offset : last])
    return count_of(connection, ordered), list(connection.execute(paged).all())


def listing(
    count: tuple[int, bool], ids: Sequence[str], results: Iterable[dict[str, Any]], limit: int
) -> Listing:
    """Encodes a page. `ids` are those of its rows and of one more, if there is one; `results` the rows."""
    rows = fill(results, limit)
    has_more = bool(rows) and len(rows) < len(ids)
    return Listing(*count, rows, ids[len(rows) - 1] if has_more else "")


def fill(results: Iterable[dict[str, Any]], limit: int = MAX_COUNT) -> list[bytes]:
    """Encodes results one by one until a page is full, so they may be read as it goes."""
    rows: list[bytes] = []
    left = _MAX_BYTES
    for result in results:
        row = encode_within(result, _MAX_BYTES)
        if rows and len(row) > left:
            break
        rows.append(row)
        left -= len(row) + 1
        if len(rows) == limit:
            break
    return rows


def join_members(whole: bytes, *more: bytes) -> bytes:
    """Returns a JSON object with more members. Each of `more` is an object, or a member.

    >>> join_members(b'{"a":1}', b'"b":2', b'{"c":3}')
    b'{"a":1,"b":2,"c":3}'
    """
    return b"{%s}" % b",".join(part.removeprefix(b"{").removesuffix(b"}") for part in (whole, *more))


def before(columns: Sequence[ColumnElement[Any]], values: Sequence[Any]) -> ColumnElement[bool]:
    """Returns the condition that a row stands after another one in descending order: `(a, b) < (x, y)`."""
    condition: ColumnElement[bool] = sa.tuple_(*columns) < sa.tuple_(*map(_bound, columns, values))
    return condition


def _bound(column: ColumnElement[Any], value: Any) -> ColumnElement[Any]:
    return sa.literal(value, column.type)
