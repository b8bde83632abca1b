"""A statement compiled once, for the driver's own cursor. SQLAlchemy would look it up and convert each
value at every use, which costs more than writing the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any

import msgspec
from sqlalchemy import JSON, DateTime, Dialect

from .tables import UtcTime


class Statement:
    """An insert or update of many rows with the same members, or a question with one row's."""

    def __init__(self, statement: Any, dialect: Dialect) -> None:
        self._statement, self._dialect = statement, dialect
        self._by_place = dialect.positional
        self._sql = ""
        self._names: tuple[str, ...] = ()
        self._pick: Callable[[Any], tuple[Any, ...]] = tuple
        self._converted: tuple[tuple[int, Callable[[Any], Any]], ...] = ()
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
        self._pick = itemgetter(*self._names)  # each statement has two parameters at least
        made = [(place, self._converter(compiled.binds[name].type)) for place, name in enumerate(self._names)]
        self._converted = tuple((place, convert) for place, convert in made if convert is not None)
        self._sql = str(compiled)

    def _converter(self, kind: Any) -> Callable[[Any], Any] | None:
        """What the driver does not know itself."""
        if isinstance(kind, JSON):
            return _json
        return _sqlite_time if self._by_place and isinstance(kind, UtcTime | DateTime) else None

    def _values(self, row: Mapping[str, Any]) -> Any:
        values = list(self._pick(row))
        for place, convert in self._converted:
            values[place] = convert(values[place])
        return values if self._by_place else dict(zip(self._names, values, strict=True))


def _json(value: Mapping[str, Any]) -> str:
    return msgspec.json.encode(value, enc_hook=dict).decode() if value else "{}"


def _sqlite_time(value: datetime | None) -> str | None:
    """As SQLAlchemy's types keep it, from where they read it."""
    return None if value is None else value.replace(tzinfo=None).isoformat(" ", "microseconds")
