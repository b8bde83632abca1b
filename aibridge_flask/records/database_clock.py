"""The database's clock, by which hosts agree on the time."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from .tables import UtcTime


def in_seconds(dialect: str, seconds: int) -> sa.ColumnElement[datetime]:
    """Returns the SQL expression of the time in so many seconds, which may be negative."""
    if dialect == "sqlite":
        text = sa.func.strftime("%Y-%m-%d %H:%M:%f", "now", f"{seconds:+d} seconds")
        return sa.type_coerce(text, UtcTime)
    interval = sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds)
    return sa.type_coerce(sa.func.clock_timestamp() + interval, UtcTime)


def read(connection: Connection) -> datetime:
    """Returns the current time."""
    moment: datetime = connection.execute(sa.select(in_seconds(connection.dialect.name, 0))).scalar_one()
    return moment
