"""A connection for the questions of one request."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy import Connection, Engine

QUERY_SECONDS = 5.0


@contextlib.contextmanager
def connected(engine: Engine) -> Iterator[Connection]:
    """Opens a connection. PostgreSQL ends a statement itself after 5 seconds: it goes on without its client.

    Raises SQLAlchemyError.
    """
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            timeout = int(QUERY_SECONDS * 1000)
            connection.execute(sa.text(f"SET LOCAL statement_timeout = {timeout}"))
        yield connection
