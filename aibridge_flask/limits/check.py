"""Compares the ledger with the interceptions that it sums."""

from __future__ import annotations

from collections.abc import Iterator
from time import time

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy import Connection, Engine

from ..records.sum_tables import ledger
from .definitions import limits_of
from .limit import Limit
from .rebuild import Key, first_bucket, spent_since


class LedgerDifference(Struct, frozen=True):
    """What an account lacks in one bucket, or has too much: then it is negative."""

    limit: str
    subject: str
    bucket: int
    missing: int


def compare(engine: Engine) -> list[LedgerDifference]:
    """Compares the present periods of all limits in one snapshot. Raises SQLAlchemyError."""
    options = {"isolation_level": "REPEATABLE READ"} if engine.dialect.name == "postgresql" else {}
    with engine.connect().execution_options(**options) as connection, connection.begin():
        return [each for limit in limits_of(connection) for each in _differences(connection, limit)]


def _differences(connection: Connection, limit: Limit) -> Iterator[LedgerDifference]:
    now = int(time())
    wanted = {key: spent for key, spent in spent_since(connection, limit, now).items() if spent}
    found = _found(connection, limit, now)
    for key in sorted(wanted.keys() | found.keys()):
        missing = wanted.get(key, 0) - found.get(key, 0)
        if missing:
            _, bucket, subject = key
            yield LedgerDifference(limit.name, subject, bucket, missing)


def _found(connection: Connection, limit: Limit, now: int) -> dict[Key, int]:
    c = ledger.c
    query = sa.select(c.account, c.bucket, c.subject, c.spent).where(
        c.limit_name == limit.name, c.bucket >= first_bucket(limit, now)
    )
    return {
        (account, bucket, subject): spent for account, bucket, subject, spent in connection.execute(query)
    }
