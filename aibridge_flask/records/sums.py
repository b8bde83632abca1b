"""One table of sums: changes add to its rows, or take from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Dialect, Table

from .statement import Statement

Row = dict[str, Any]
Merge = Callable[[Any], Mapping[str, Any]]


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
        insert = import_module(f"sqlalchemy.dialects.{dialect.name}").insert(table)
        values = {name: table.c[name] + insert.excluded[name] for name in amounts}
        values |= merge(insert.excluded)
        is_row = [table.c[name] == sa.bindparam(f"of_{name}") for name in self._keys]
        less = {name: table.c[name] - sa.bindparam(f"less_{name}") for name in amounts}
        update = sa.update(table).where(*is_row).values(less)
        delete = sa.delete(table).where(*is_row, table.c[counted] <= 0)
        upsert = insert.on_conflict_do_update(index_elements=self._keys, set_=values)
        self._upsert, self._update, self._delete = (
            Statement(statement, dialect) for statement in (upsert, update, delete)
        )

    def change(self, cursor: Any, new: Iterable[Row], old: Iterable[Row]) -> None:
        """Adds new rows and takes old ones: of a row that is both the difference counts.

        Rows with the same key are one, whose other columns are those of the first. A row that is only taken
        from needs no other columns, and is deleted if nothing is left.
        """
        added, taken = self._joined(new), self._joined(old)
        for key in added.keys() & taken.keys():
            less = taken.pop(key)
            for name in self._amounts:
                added[key][name] -= less[name]
        self._add(cursor, added)
        self._take(cursor, taken)

    def correct(self, cursor: Any, row: Mapping[str, Any]) -> None:
        """Adds what a row lacks, and deletes it if nothing is left."""
        self._upsert.run(cursor, [row])
        self._delete.run(cursor, [self._key_of(row)])

    def _add(self, cursor: Any, by_key: Mapping[tuple[Any, ...], Row]) -> None:
        if by_key:
            self._upsert.run(cursor, [by_key[key] for key in sorted(by_key)])

    def _take(self, cursor: Any, by_key: Mapping[tuple[Any, ...], Row]) -> None:
        if by_key:
            rows = [by_key[key] for key in sorted(by_key)]
            less = [{f"less_{name}": row[name] for name in self._amounts} for row in rows]
            keys = list(map(self._key_of, rows))
            self._update.run(cursor, [{**key, **amounts} for key, amounts in zip(keys, less, strict=True)])
            self._delete.run(cursor, keys)

    def _key_of(self, row: Mapping[str, Any]) -> Row:
        return {f"of_{name}": row[name] for name in self._keys}

    def _joined(self, rows: Iterable[Row]) -> dict[tuple[Any, ...], Row]:
        by_key: dict[tuple[Any, ...], Row] = {}
        for row in rows:
            key = tuple(row[name] for name in self._keys)
            if key in by_key:
                for name in self._amounts:
                    by_key[key][name] += row[name]
            else:
                by_key[key] = dict(row)
        return by_key
