"""The limits in effect, as the database holds them: those of files and those that were made at run time."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from ..config.limits import LimitSchema, definition
from ..records.sum_tables import holds, limits, sequences
from .limit import Limit

CHANGES = "limits"  # in `sequences`: the number of the last change
_VERSION = "SELECT value FROM sequences WHERE name = 'limits'"
_ALL = "SELECT id, source, definition, created_at FROM limits ORDER BY name"


class KnownLimits:
    """Reads them again only if they have changed. For one thread."""

    def __init__(self) -> None:
        self.version = -1
        self._limits: tuple[Limit, ...] = ()

    def read(self, cursor: Any) -> tuple[Limit, ...]:
        """Returns the limits, by the driver's cursor. Raises the driver's errors."""
        cursor.execute(_VERSION)
        (version,) = cursor.fetchone() or (0,)
        if version != self.version:
            self._limits = read_limits(cursor) if version else ()
            self.version = int(version)
        return self._limits


def read_limits(cursor: Any) -> tuple[Limit, ...]:
    """Returns all limits, ordered by name, by the driver's cursor. Raises the driver's errors."""
    cursor.execute(_ALL)
    return tuple(make_limit(*row) for row in cursor.fetchall())


def limits_of(connection: Connection) -> tuple[Limit, ...]:
    """As `read_limits`, by a connection of SQLAlchemy."""
    driver: Any = connection.connection.dbapi_connection
    return read_limits(driver.cursor())


def make_limit(id: str, source: str, definition: Any, created_at: Any) -> Limit:
    """Returns a limit by its row; some drivers have decoded the JSON and the time."""
    tree = json.loads(definition) if isinstance(definition, str) else definition
    moment = datetime.fromisoformat(created_at) if isinstance(created_at, str) else created_at
    return Limit(id, LimitSchema().load(tree), source, moment.replace(tzinfo=moment.tzinfo or UTC))


def exclude_applier(connection: Connection) -> None:
    """From here on, who writes sums waits for this transaction, and reads the limits anew after it."""
    for name, step in (("interceptions", 0), (CHANGES, 1)):
        is_its = sequences.c.name == name
        changed = connection.execute(
            sa.update(sequences).where(is_its).values(value=sequences.c.value + step)
        )
        if not changed.rowcount:
            connection.execute(sa.insert(sequences).values(name=name, value=step))


def put(connection: Connection, limit: Limit) -> None:
    """Writes a limit in place of the one of its name, if there is one."""
    connection.execute(sa.delete(limits).where(limits.c.name == limit.name))
    connection.execute(
        sa.insert(limits).values(
            name=limit.name,
            id=limit.id,
            source=limit.source,
            definition=definition(limit.settings),
            created_at=limit.created_at,
        )
    )


def remove(connection: Connection, name: str) -> None:
    """Removes a limit, and what is held of it. What was spent of it stays in the ledger for a while."""
    connection.execute(sa.delete(limits).where(limits.c.name == name))
    connection.execute(sa.delete(holds).where(holds.c.limit_name == name))
