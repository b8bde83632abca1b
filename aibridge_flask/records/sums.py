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

    def add(self, cursor: Any, rows: Iterable[Row]) -> None:
        """Adds whole rows, those with the same key as one: its other columns are those of the first."""
        by_key = self._joined(rows)
        if by_key:
            self._upsert.run(cursor, [by_key[key] for key in sorted(by_key)])

    def correct(self, cursor: Any, row: Row) -> None:
        """Adds what a row lacks, and deletes it if nothing is left."""
        self.add(cursor, [row])
        self._delete.run(cursor, [{f"of_{name}": row[name] for name in self._keys}])

    def take(self, cursor: Any, rows: Iterable[Row]) -> None:
        """Takes the amounts of rows, and deletes what is left of nothing."""
        by_key = self._joined(rows)
        if by_key:
            ordered = [by_key[key] for key in sorted(by_key)]
            less = [{f"less_{name}": row[name] for name in self._amounts} for row in ordered]
            of = [{f"of_{name}": row[name] for name in self._keys} for row in ordered]
            self._update.run(cursor, [{**key, **amounts} for key, amounts in zip(of, less, strict=True)])
            self._delete.run(cursor, of)

    def _joined(self, rows: Iterable[Row]) -> Mapping[tuple[Any, ...], Row]:
        by_key: dict[tuple[Any, ...], Row] = {}
        for row in rows:
            key = tuple(row[name] for name in self._keys)
            if key in by_key:
                for name in self._amounts:
                    by_key[key][name] += row[name]
            else:
                by_key[key] = dict(row)
        return by_key
