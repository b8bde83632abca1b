"""Compares the sums with the interceptions that they sum, and repairs them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy import Connection, Engine, Table

from . import rollups, sessions
from .contribution import Change
from .contributions import Contributions
from .database import read_info
from .events import EPOCH
from .sum_tables import people_daily, totals_hourly, usage_daily, usage_hourly
from .sum_tables import sessions as session_table
from .sums import Key, Part, Row, as_row, columns_of
from .tables import interceptions

SUMS_SINCE = "sums_since"  # in `schema_info`: older interceptions may have been deleted, their sums stay
_SLICE = 1000
_TABLES: Mapping[Table, Sequence[str]] = {
    **{table: amounts for table, (amounts, _) in rollups.TABLES.items()},
    session_table: sessions.SUMMED,
}
_STARTS = {usage_hourly: "hour", usage_daily: "day", people_daily: "day", totals_hourly: "hour"}


class Difference(Struct, frozen=True):
    """A row of sums that is not what it sums. `row` has what it lacks in place of its amounts."""

    table: Table
    row: Row

    @property
    def key(self) -> Key:
        return tuple(self.row[column.name] for column in self.table.primary_key)

    @property
    def missing(self) -> dict[str, int]:
        """The amounts that are too small, or too large: then they are negative."""
        return {name: self.row[name] for name in _TABLES[self.table] if self.row[name]}


class Comparison(Struct, frozen=True):
    """What a check has found. `unsummed` are the ids of interceptions that have changed since they were
    summed, or never were."""

    differences: tuple[Difference, ...] = ()
    unsummed: tuple[str, ...] = ()


class SumCheck:
    """Raises SQLAlchemyError if the database is away."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def compare(self) -> Comparison:
        """Compares all in one snapshot, beside the traffic. It may take minutes."""
        expected: dict[Table, dict[Key, Part]] = {table: {} for table in _TABLES}
        unsummed: list[str] = []
        with self._snapshot() as connection:
            for change in self._all(connection):
                if change.is_one:
                    unsummed.append(change.row.id)
                for table, part in _summed(change):
                    known = expected[table].get(part.key)
                    expected[table][part.key] = known.plus(part) if known else part
            found = tuple(_differences(connection, expected))
        return Comparison(found, tuple(unsummed))

    def repair(self, found: Comparison) -> None:
        """Corrects the sums by what they lack, and sums what is not summed. Records may come meanwhile."""
        contributions = Contributions(self._engine.dialect)
        for start in range(0, len(found.differences), _SLICE):
            with self._cursor() as cursor:
                for difference in found.differences[start : start + _SLICE]:
                    contributions.correct(cursor, difference.table, difference.row)
        for start in range(0, len(found.unsummed), _SLICE):
            with self._cursor() as cursor:
                contributions.update(cursor, found.unsummed[start : start + _SLICE])

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[Any]:
        with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            driver: Any = connection.connection.dbapi_connection
            yield driver.cursor()

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[Connection]:
        options = {"isolation_level": "REPEATABLE READ"} if self._engine.dialect.name == "postgresql" else {}
        with self._engine.connect().execution_options(**options) as connection, connection.begin():
            yield connection

    def _all(self, connection: Connection) -> Iterator[Change]:
        driver: Any = connection.connection.dbapi_connection
        contributions = Contributions(self._engine.dialect, locks=False)
        query = sa.select(interceptions.c.id).order_by(interceptions.c.id).limit(_SLICE)
        ids = list(connection.scalars(query))
        while ids:
            yield from contributions.compare(driver.cursor(), ids)
            ids = list(connection.scalars(query.where(interceptions.c.id > ids[-1])))


def _summed(change: Change) -> Iterator[tuple[Table, Part]]:
    """Yields what an interception has added, as it stands in its row."""
    if not change.old_session:
        return
    yield session_table, sessions.part_of(change.row, change.before, change.old_session)
    yield from rollups.parts_of(change.row, change.before, change.old_session, change.old_usage)


def _differences(
    connection: Connection, expected: Mapping[Table, Mapping[Key, Part]]
) -> Iterator[Difference]:
    """Yields the differences of all tables, but of rows whose interceptions may have been deleted."""
    since = datetime.fromisoformat(read_info(connection).get(SUMS_SINCE, EPOCH.isoformat()))
    old_usages: set[int] = set()
    for table, parts in expected.items():
        columns = columns_of(table, _TABLES[table])
        lacking = {key: as_row(columns, part) for key, part in parts.items()}
        for mapping in connection.execute(sa.select(table)).mappings():
            found = dict(mapping)
            key = tuple(found[each.name] for each in table.primary_key)
            wanted = lacking.pop(key, {})
            if table in _STARTS and found[_STARTS[table]] < since:
                old_usages.add(found["id"])
            if not _may_lack_interceptions(table, found, since, old_usages):
                yield from _difference(table, {**found, **wanted}, wanted, found)
        for row in lacking.values():
            yield from _difference(table, row, row, {})


def _may_lack_interceptions(
    table: Table, row: Mapping[str, Any], since: datetime, old_usages: set[int]
) -> bool:
    if table is session_table:
        return bool(row["started_at"] < since)
    return row["id" if table in _STARTS else "usage_id"] in old_usages


def _difference(
    table: Table, row: Mapping[str, Any], wanted: Mapping[str, Any], found: Mapping[str, Any]
) -> Iterable[Difference]:
    missing = {name: wanted.get(name, 0) - found.get(name, 0) for name in _TABLES[table]}
    return [Difference(table, {**row, **missing})] if any(missing.values()) else []
