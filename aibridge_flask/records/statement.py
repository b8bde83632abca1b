"""A statement that is compiled once, and runs on the driver's cursor.

SQLAlchemy looks a statement up and converts each value at every use, which costs more than writing the rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import JSON, BindParameter, DateTime, Dialect
from sqlalchemy.sql.visitors import replacement_traverse

from .tables import UtcTime

IDS = {
    "sqlite": "SELECT value FROM json_each(?)",
    "postgresql": "SELECT value FROM json_array_elements_text(%s::json)",
}
"""The query for the ids of a parameter that is a JSON array."""


def together(cursor: Any) -> contextlib.AbstractContextManager[Any]:
    """Statements that are run within are sent to PostgreSQL at once, which saves a round trip of each.

    The first error is raised at the end, at the latest. Nothing can be read before.
    """
    pipeline: Callable[[], contextlib.AbstractContextManager[Any]]
    pipeline = getattr(cursor.connection, "pipeline", contextlib.nullcontext)
    return pipeline()


_shared: dict[tuple[Any, str, bool], Statement] = {}


def shared(statement: Any, dialect: Dialect, joined: bool = False) -> Statement:
    """Returns the `Statement` of a statement that lasts, which all databases of a kind share: to compile it
    takes longer than to run it.
    """
    key = statement, dialect.name, joined
    return _shared.get(key) or _shared.setdefault(key, Statement(statement, dialect, joined))


class Statement:
    """An insert, update or deletion of many rows with the same members."""

    def __init__(self, statement: Any, dialect: Dialect, joined: bool = False) -> None:
        """`joined`: on PostgreSQL, which plans each statement anew, one statement writes all rows. No two of
        them may be of the same key, and none may hold a long text.
        """
        self._statement, self._dialect = statement, dialect
        self._is_joined = joined and dialect.name == "postgresql"
        self._json_members: tuple[str, ...] = ()
        self._is_positional = dialect.positional
        self._sql = ""
        self._names: tuple[str, ...] = ()
        self._select: Callable[[Any], tuple[Any, ...]] = tuple
        self._converters: tuple[tuple[int, Callable[[Any], Any]], ...] = ()
        self._constants: Mapping[str, Any] = {}

    def run(self, cursor: Any, rows: Sequence[Mapping[str, Any]]) -> None:
        if not self._sql:
            self._compile(rows[0])
        if self._is_joined:
            cursor.execute(self._sql, {**self._constants, _ROWS: self._as_json(rows)})
        elif len(rows) == 1:
            cursor.execute(self._sql, self._values(rows[0]))  # which psycopg does in fewer round trips
        else:
            cursor.executemany(self._sql, [self._values(row) for row in rows])

    def _compile(self, row: Mapping[str, Any]) -> None:
        insert = self._statement.is_insert
        compiled = self._statement.compile(dialect=self._dialect, column_keys=list(row) if insert else None)
        if self._is_joined:
            types = {name: compiled.binds[name].type for name in compiled.params if name in row}
            self._json_members = tuple(name for name, kind in types.items() if isinstance(kind, JSON))
            compiled = _of_rows(self._statement, types).compile(dialect=self._dialect)
            self._constants = {name: value for name, value in compiled.params.items() if name != _ROWS}
            self._sql = str(compiled)
            return
        self._constants = {name: value for name, value in compiled.params.items() if name not in row}
        self._names = tuple(compiled.positiontup or compiled.params)
        self._select = _getter(self._names)
        converters = [
            (index, self._converter(compiled.binds[name].type)) for index, name in enumerate(self._names)
        ]
        self._converters = tuple((index, convert) for index, convert in converters if convert is not None)
        self._sql = str(compiled)

    def _converter(self, kind: Any) -> Callable[[Any], Any] | None:
        """Returns the conversion that the driver lacks, or None."""
        if isinstance(kind, JSON):
            return _to_json
        return _to_sqlite_time if self._is_positional and isinstance(kind, UtcTime | DateTime) else None

    def _values(self, row: Mapping[str, Any]) -> Any:
        values = list(self._select({**self._constants, **row} if self._constants else row))
        for index, convert in self._converters:
            values[index] = convert(values[index])
        return values if self._is_positional else dict(zip(self._names, values, strict=True))

    def _as_json(self, rows: Sequence[Mapping[str, Any]]) -> str:
        if self._json_members:
            rows = [{**row, **{name: row[name] or {} for name in self._json_members}} for row in rows]
        return msgspec.json.encode(rows, enc_hook=dict).decode()


_ROWS = "rows"


def _of_rows(statement: Any, types: Mapping[str, Any]) -> Any:
    """Returns the insert or update with the columns of a JSON array's rows in place of its parameters."""
    array = sa.func.json_to_recordset(sa.bindparam(_ROWS, type_=JSON))
    columns = (sa.column(name, kind) for name, kind in types.items())
    new = array.table_valued(*columns).render_derived(with_types=True)
    if statement.is_insert:
        return statement.from_select(list(types), sa.select(*new.c))

    def to_column(element: Any, **options: Any) -> Any:
        is_member = isinstance(element, BindParameter) and element.key in types
        return new.c[element.key] if is_member else None

    return replacement_traverse(statement, {}, to_column)


def _getter(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) == 1:  # else itemgetter would return the value alone
        return lambda row: (row[names[0]],)
    return itemgetter(*names) if names else lambda row: ()


def _to_json(value: Any) -> str:
    return msgspec.json.encode(value, enc_hook=dict).decode() if value else "{}"


def _to_sqlite_time(value: datetime | None) -> str | None:
    """Returns the format in which SQLAlchemy's types read it."""
    return None if value is None else value.isoformat(" ", "microseconds")[:26]  # without its zone
