"""A statement compiled once. SQLAlchemy would look it up and convert each value at every use, which
costs more than writing the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Dialect


class Statement:
    """An insert or update of many rows with the same members."""

    def __init__(self, statement: Any, dialect: Dialect) -> None:
        self._statement, self._dialect = statement, dialect
        self._by_place = dialect.positional
        self._sql = ""
        self._names: tuple[str, ...] = ()

    def run(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        if not self._sql:
            self._compile(rows[0])
        values: list[Any] = [self._values(row) for row in rows]
        connection.exec_driver_sql(self._sql, values)

    def _compile(self, row: Mapping[str, Any]) -> None:
        insert = self._statement.is_insert
        compiled = self._statement.compile(dialect=self._dialect, column_keys=list(row) if insert else None)
        self._names = tuple(compiled.positiontup or compiled.params)
        self._sql = str(compiled)

    def _values(self, row: Mapping[str, Any]) -> Any:
        if self._by_place:  # SQLite
            return tuple([_plain(row[name]) for name in self._names])
        return {name: _json(row[name]) for name in self._names}


def _json(value: Any) -> Any:
    return msgspec.json.encode(value, enc_hook=dict).decode() if isinstance(value, Mapping) else value


def _plain(value: Any) -> Any:
    """As SQLAlchemy's types keep it in SQLite, from where they read it."""
    if type(value) is datetime:
        return value.replace(tzinfo=None).isoformat(" ", "microseconds")
    return _json(value)
