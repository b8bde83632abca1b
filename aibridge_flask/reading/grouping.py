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
_NEEDED = {**_COLUMNS, "group": "group_set", "hour": "hour"}


def columns_of(keys: Iterable[str]) -> set[str]:
    """Returns the columns that keys need; days and months are told by each table of sums."""
    return {_NEEDED[key] for key in keys if key in _NEEDED}


def grouped(
    rows: sa.Subquery, keys: Sequence[str], dialect: str, sums: Callable[[Any], Sequence[ColumnElement[Any]]]
) -> sa.Select[Any]:
    """Returns the query of `sums` by the keys; without keys of one row. By `group` a row counts in each of
    its groups.

    `sums` is called with the columns of the rows.
    """
    keyed = sa.select(*rows.c, *(_key_of(rows, key, dialect).label(f"by_{key}") for key in keys))
    if "group" in keys:
        keyed = keyed.outerjoin(group_sets, group_sets.c.id == rows.c.group_set)
    inner = keyed.subquery()
    columns = [inner.c[f"by_{key}"] for key in keys]
    named = [column.label(key) for column, key in zip(columns, keys, strict=True)]
    return sa.select(*named, *sums(inner.c)).group_by(*columns)


def _key_of(rows: sa.Subquery, key: str, dialect: str) -> ColumnElement[Any]:
    """Returns the value of a key, which may be one of the rows' own.

    Times are `2026-11-28T13:00:00Z`, `2026-11-28` or `2026-11`.
    """
    if key == "group":
        return sa.func.coalesce(group_sets.c.name, "")
    if key in _FORMATS:
        text = _time_text(rows.c.at, key, dialect)
        return text + ":00:00Z" if key == "hour" else text
    column: ColumnElement[Any] = rows.c[_COLUMNS.get(key, key)]
    return column


def _time_text(at: ColumnElement[Any], key: str, dialect: str) -> ColumnElement[str]:
    if dialect == "postgresql":
        return sa.func.to_char(sa.func.timezone("UTC", at), _FORMATS[key], type_=sa.Text())
    text = sa.func.substr(at, 1, _LENGTHS[key], type_=sa.Text())
    return sa.func.replace(text, " ", "T", type_=sa.Text())


def sums_of(names: Sequence[str]) -> Callable[[Any], Sequence[ColumnElement[Any]]]:
    """Returns what sums up the columns with these names, as integers: PostgreSQL's are decimal numbers."""

    def sums(columns: Any) -> Sequence[ColumnElement[Any]]:
        totals = ((name, sa.func.coalesce(sa.func.sum(columns[name]), 0)) for name in names)
        return [sa.cast(total, sa.BigInteger).label(name) for name, total in totals]

    return sums
