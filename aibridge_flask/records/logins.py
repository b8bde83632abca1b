"""Logins of the dashboard that were ended: their cookies are valid in themselves, on every host."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy import Engine

from .events import now
from .tables import ended_logins

MAX_AGE = timedelta(days=7)
"""Of a login."""

_c = ended_logins.c


def end(engine: Engine, id: str) -> None:
    """Ends a login. Forgets those that are too old to be accepted anyway. Raises SQLAlchemyError."""
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(sa.delete(ended_logins).where(_c.ended_at < now() - MAX_AGE))
        if connection.scalar(sa.select(_c.id).where(_c.id == id)) is None:
            connection.execute(sa.insert(ended_logins).values(id=id, ended_at=now()))


def is_ended(engine: Engine, id: str) -> bool:
    """Raises SQLAlchemyError."""
    with engine.connect() as connection:
        return connection.scalar(sa.select(_c.id).where(_c.id == id)) is not None
