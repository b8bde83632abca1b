"""Fills tables of coarser sums that are newer than `usage_hourly`, from what stands there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, RowMapping, Table

from .keys import day_id, usage_id
from .rollups import TABLES
from .sum_tables import people_daily, totals_hourly, usage_hourly
from .sums import Part, as_row, columns_of, joined

_AMOUNTS = TABLES[usage_hourly][0]
_SLICE = 1000
COARSER: Mapping[Table, tuple[Callable[..., int], Callable[[RowMapping], tuple[Any, ...]]]] = {
    people_daily: (day_id, lambda row: (row["hour"].replace(hour=0), row["initiator_id"], row["group_set"])),
    totals_hourly: (usage_id, lambda row: (row["hour"],)),
}
"""The tables, each with what makes the key of its row, and the columns that the key is made of."""


def fill(connection: Connection, table: Table) -> None:
    """Fills a new table. It takes ten seconds for a million interceptions."""
    columns = columns_of(table, _AMOUNTS)
    rows = [as_row(columns, part) for part in joined(_parts(connection, table)).values()]
    for start in range(0, len(rows), _SLICE):
        connection.execute(sa.insert(table), rows[start : start + _SLICE])


def _parts(connection: Connection, table: Table) -> Iterator[Part]:
    id_of, keys_of = COARSER[table]
    for rows in connection.execute(sa.select(usage_hourly)).mappings().partitions(_SLICE):
        for row in rows:
            keys = keys_of(row)
            yield Part((id_of(*keys),), tuple(row[name] for name in _AMOUNTS), keys)
