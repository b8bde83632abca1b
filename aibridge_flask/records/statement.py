"""A statement compiled once, for the driver's own cursor. SQLAlchemy would look it up and convert each
value at every use, which costs more than writing the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Dialect

_AS_THEY_ARE = frozenset((str, int, bool, type(None), datetime))


class Statement:
    """An insert or update of many rows with the same members, or a question with one row's."""

    def __init__(self, statement: Any, dialect: Dialect) -> None:
        self._statement, self._dialect = statement, dialect
        self._by_place = dialect.positional
        self._sql = ""
        self._names: tuple[str, ...] = ()
        self._own: Mapping[str, Any] = {}

    def run(self, cursor: Any, rows: Sequence[Mapping[str, Any]]) -> None:
        if not self._sql:
            self._compile(rows[0])
        cursor.executemany(self._sql, [self._values(row) for row in rows])

    def first(self, cursor: Any, row: Mapping[str, Any]) -> tuple[Any, ...]:
        """What is found first, or nothing."""
        if not self._sql:
            self._compile(row)
        cursor.execute(self._sql, self._values({**self._own, **row}))
        return tuple(cursor.fetchone() or ())

    def _compile(self, row: Mapping[str, Any]) -> None:
        insert = self._statement.is_insert
        compiled = self._statement.compile(dialect=self._dialect, column_keys=list(row) if insert else None)
        self._own = compiled.params
        self._names = tuple(compiled.positiontup or compiled.params)
        self._sql = str(compiled)

    def _values(self, row: Mapping[str, Any]) -> Any:
        if self._by_place:  # SQLite
            return tuple([_plain(row[name]) for name in self._names])
        return {name: _json(row[name]) for name in self._names}


def _json(value: Any) -> Any:
    if type(value) in _AS_THEY_ARE:
        return value
    return msgspec.json.encode(value, enc_hook=dict).decode() if isinstance(value, Mapping) else value


def _plain(value: Any) -> Any:
    """As SQLAlchemy's types keep it in SQLite, from where they read it."""
    if type(value) is datetime:
        return value.replace(tzinfo=None).isoformat(" ", "microseconds")
    return _json(value)
