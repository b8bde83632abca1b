"""Groups rows of usage by up to three keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement

from ..records.sum_tables import group_sets

MAX_KEYS = 3
_COLUMNS: Mapping[str, str] = {
    "initiator": "initiator_id",
    **{name: name for name in ("model", "client", "provider", "provider_name", "credential_kind")},
    "error_type": "error_type",
    "session": "session",
}
_LENGTHS = {"hour": 13, "day": 10, "month": 7}
_FORMATS = {"hour": 'YYYY-MM-DD"T"HH24', "day": "YYYY-MM-DD", "month": "YYYY-MM"}
KEYS = (*_FORMATS, "group", *_COLUMNS)
_NEEDED = {**_COLUMNS, "group": "group_set", **dict.fromkeys(_FORMATS, "at")}


def columns_of(keys: Iterable[str]) -> list[str]:
    """Returns the columns of rows that keys need; `at` is the time."""
    return sorted({_NEEDED[key] for key in keys})


def grouped(
    rows: sa.Subquery, keys: Sequence[str], dialect: str, sums: Callable[[Any], Sequence[ColumnElement[Any]]]
) -> sa.Select[Any]:
    """Returns the query of `sums` by the keys; without keys of one row. By `group` a row counts in each of
    its groups.

    `sums` is called with the columns of the rows.
    """
    columns = [_key_of(rows, key, dialect) for key in keys]
    named = [column.label(key) for column, key in zip(columns, keys, strict=True)]
    query = sa.select(*named, *sums(rows.c)).group_by(*columns)
    return query.select_from(_with_groups(rows) if "group" in keys else rows)


def others_as_one(rows: sa.Subquery, key: str, kept: Sequence[str]) -> sa.Subquery:
    """Returns the rows with null for all other values of a key."""
    own = rows.c[_COLUMNS[key]]
    columns = [
        sa.case((own.in_(kept), own)).label(own.name) if column is own else column for column in rows.c
    ]
    return sa.select(*columns).subquery()


def _with_groups(rows: sa.Subquery) -> sa.FromClause:
    return rows.outerjoin(group_sets, group_sets.c.id == rows.c.group_set)


def _key_of(rows: sa.Subquery, key: str, dialect: str) -> ColumnElement[Any]:
    """Returns the value of a key, which may be one of the rows' own.

    Times are `2026-11-28T13:00:00Z`, `2026-11-28` or `2026-11`. Constants are written out: with parameters
    PostgreSQL would not see that what is selected is what is grouped by.
    """
    if key == "group":
        return sa.func.coalesce(group_sets.c.name, _text(""))
    if key in _FORMATS:
        text = _time_text(rows.c.at, key, dialect)
        return text + _text(":00:00Z") if key == "hour" else text
    column: ColumnElement[Any] = rows.c[_COLUMNS.get(key, key)]
    return column


def _time_text(at: ColumnElement[Any], key: str, dialect: str) -> ColumnElement[str]:
    if dialect == "postgresql":
        return sa.func.to_char(sa.func.timezone(_text("UTC"), at), _text(_FORMATS[key]), type_=sa.Text())
    text = sa.func.substr(at, sa.literal_column("1"), sa.literal_column(f"{_LENGTHS[key]}"), type_=sa.Text())
    return sa.func.replace(text, _text(" "), _text("T"), type_=sa.Text())


def _text(constant: str) -> ColumnElement[str]:
    return sa.literal_column(f"'{constant}'", sa.Text())


def sums_of(names: Sequence[str]) -> Callable[[Any], Sequence[ColumnElement[Any]]]:
    """Returns what sums up the columns with these names, as integers: PostgreSQL's are decimal numbers."""

    def sums(columns: Any) -> Sequence[ColumnElement[Any]]:
        totals = ((name, sa.func.coalesce(sa.func.sum(columns[name]), 0)) for name in names)
        return [sa.cast(total, sa.BigInteger).label(name) for name, total in totals]

    return sums
