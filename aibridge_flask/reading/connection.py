"""A connection for the questions of one request."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy import Connection, Engine

from ..records.deadlines import DEADLINES

QUERY_SECONDS = 5.0
_SQLITE_CACHE_KIB = 16 << 10  # so that what is sorted by a question's keys stays in memory
Source = Engine | Connection
"""Where questions are asked: several of one page share the connection that is given to them."""


@contextlib.contextmanager
def connected(source: Source) -> Iterator[Connection]:
    """Opens a connection, unless one is given. PostgreSQL ends a statement itself after 5 seconds: it goes on
    without its client.

    Raises SQLAlchemyError.
    """
    if isinstance(source, Connection):
        DEADLINES.attach(source.connection.driver_connection)  # a write beside it may have had the deadline
        yield source
        return
    with source.connect() as connection:
        if source.dialect.name == "postgresql":
            timeout = int(QUERY_SECONDS * 1000)
            connection.execute(sa.text(f"SET LOCAL statement_timeout = {timeout}"))
        else:
            connection.exec_driver_sql(f"PRAGMA cache_size = -{_SQLITE_CACHE_KIB}")
        yield connection
