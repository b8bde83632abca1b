"""One table of sums: changes add to its rows, or take from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib import import_module
from operator import add, sub
from typing import Any

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy import Dialect, Table

from .statement import shared

Row = dict[str, Any]
Key = tuple[Any, ...]
Merge = Callable[[Any], Mapping[str, Any]]


class Part(Struct, frozen=True):
    """What is added to a row of sums: its key, amounts, and other columns as they stand in the table."""

    key: Key
    amounts: tuple[int, ...]
    others: tuple[Any, ...] = ()

    def plus(self, part: Part) -> Part:
        """Returns both together. The other columns are those of the first."""
        return Part(self.key, tuple(map(add, self.amounts, part.amounts)), self.others)

    def minus(self, part: Part) -> Part:
        """Returns the difference of the amounts."""
        return Part(self.key, tuple(map(sub, self.amounts, part.amounts)), self.others)


class Sums:
    """Adds and takes `amounts` by the table's key, for several changes at once.

    A row without any of `counted` is deleted. `merge` are the values of other columns where a row exists.
    """

    def __init__(
        self,
        dialect: Dialect,
        table: Table,
        amounts: Sequence[str],
        counted: str,
        merge: Merge = lambda new: {},
    ) -> None:
        """`merge` is called with the columns of the row that is to be inserted."""
        self._amounts, self._keys = amounts, [column.name for column in table.primary_key]
        self._columns = columns_of(table, amounts)
        self._upsert, self._update, self._delete = (
            shared(statement, dialect, joined=statement.is_insert)
            for statement in _statements(dialect.name, table, tuple(amounts), counted, merge)
        )

    def change(self, cursor: Any, new: Iterable[Part], old: Iterable[Part]) -> None:
        """Adds new parts and takes old ones: of a row that has both the difference counts.

        A row that is only taken from needs no other columns, and is deleted if nothing is left.
        """
        added, taken = joined(new), joined(old)
        for key in added.keys() & taken.keys():
            added[key] = added[key].minus(taken.pop(key))
        if added:
            self._upsert.run(cursor, [as_row(self._columns, added[key]) for key in sorted(added)])
        self._take(cursor, taken)

    def correct(self, cursor: Any, row: Mapping[str, Any]) -> None:
        """Adds what a row lacks, and deletes it if nothing is left."""
        self._upsert.run(cursor, [row])
        self._delete.run(cursor, [{f"of_{name}": row[name] for name in self._keys}])

    def _take(self, cursor: Any, parts: Mapping[Key, Part]) -> None:
        if parts:
            keys = [dict(zip(map("of_{}".format, self._keys), key, strict=True)) for key in sorted(parts)]
            less = [
                dict(zip(map("less_{}".format, self._amounts), parts[key].amounts, strict=True))
                for key in sorted(parts)
            ]
            self._update.run(cursor, [{**key, **amounts} for key, amounts in zip(keys, less, strict=True)])
            self._delete.run(cursor, keys)


@cache
def _statements(
    dialect: str, table: Table, amounts: Sequence[str], counted: str, merge: Merge
) -> tuple[Any, Any, Any]:
    """Returns the statements that add to a row, take from it, and delete it. Building them takes a while."""
    insert = import_module(f"sqlalchemy.dialects.{dialect}").insert(table)
    keys = [column.name for column in table.primary_key]
    values = {name: table.c[name] + insert.excluded[name] for name in amounts}
    values |= merge(insert.excluded)
    is_row = [table.c[name] == sa.bindparam(f"of_{name}") for name in keys]
    less = {name: table.c[name] - sa.bindparam(f"less_{name}") for name in amounts}
    return (
        insert.on_conflict_do_update(index_elements=keys, set_=values),
        sa.update(table).where(*is_row).values(less),
        sa.delete(table).where(*is_row, table.c[counted] <= 0),
    )


def columns_of(table: Table, amounts: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of a part's members."""
    keys = [column.name for column in table.primary_key]
    return (*keys, *amounts, *(each.name for each in table.columns if each.name not in (*keys, *amounts)))


def as_row(columns: Sequence[str], part: Part) -> Row:
    """Returns the row with this part alone."""
    return dict(zip(columns, (*part.key, *part.amounts, *part.others), strict=True))


def joined(parts: Iterable[Part]) -> dict[Key, Part]:
    """Joins the parts of the same row; returns them by their key."""
    by_key: dict[Key, Part] = {}
    for part in parts:
        known = by_key.get(part.key)
        by_key[part.key] = known.plus(part) if known else part
    return by_key
