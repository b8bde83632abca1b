"""Sums of a person's interceptions that were deleted before: their rows are added to those of ERASED."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Dialect, Table

from .contributions import Contributions
from .keys import day_id, session_key, usage_id
from .sum_tables import (
    PEOPLE_KEYS,
    USAGE_KEYS,
    people_daily,
    sequences,
    session_usage,
    sessions,
    tools_hourly,
    usage_hourly,
)
from .tombstones import ERASED

_NO_NAME = {"initiator_id": ERASED}
_NO_PROMPT: dict[str, Any] = {"metadata": {}, "prompt_of": "", "prompt_at": None}


class ErasedSums:
    """Of one person. Each method does some rows in a transaction of the caller's, and returns how many."""

    def __init__(self, dialect: Dialect, actor_id: str) -> None:
        self._actor_id = actor_id
        self._sums = Contributions(dialect)

    def rename_sessions(self, connection: Connection, count: int) -> int:
        rows = self._rows(connection, sessions, count)
        keys = {row["key"]: session_key(ERASED, row["id"]) for row in rows}
        changes = {row["key"]: {"key": keys[row["key"]], **_NO_NAME, **_NO_PROMPT} for row in rows}
        self._move(connection, sessions, "key", changes)
        self._move(
            connection, session_usage, "session_key", {old: {"session_key": keys[old]} for old in keys}
        )
        return len(rows)

    def rename_usage(self, connection: Connection, count: int) -> int:
        rows = self._rows(connection, usage_hourly, count)
        keys = {row["id"]: usage_id(*(({**row, **_NO_NAME})[name] for name in USAGE_KEYS)) for row in rows}
        self._move(connection, usage_hourly, "id", {old: {"id": keys[old], **_NO_NAME} for old in keys})
        for table in (session_usage, tools_hourly):
            self._move(connection, table, "usage_id", {old: {"usage_id": keys[old]} for old in keys})
        return len(rows)

    def rename_days(self, connection: Connection, count: int) -> int:
        """Also those of interceptions that are there: who is erased with them keeps the row until now."""
        rows = self._rows(connection, people_daily, count)
        ids = {row["id"]: day_id(*(({**row, **_NO_NAME})[name] for name in PEOPLE_KEYS)) for row in rows}
        self._move(connection, people_daily, "id", {old: {"id": ids[old], **_NO_NAME} for old in ids})
        return len(rows)

    def _rows(self, connection: Connection, table: Table, count: int) -> list[dict[str, Any]]:
        """Returns the person's next rows. From here on, who else writes sums waits for this."""
        connection.execute(sa.update(sequences).values(value=sequences.c.value))
        query = sa.select(table).where(table.c.initiator_id == self._actor_id).limit(count)
        return [dict(row) for row in connection.execute(query).mappings()]

    def _move(
        self, connection: Connection, table: Table, column: str, changes: dict[int, dict[str, Any]]
    ) -> None:
        """Adds the rows whose `column` is a key of `changes`, with the changes, to those that are there."""
        is_moved = table.c[column].in_(list(changes))
        driver: Any = connection.connection.dbapi_connection
        rows = (
            connection.execute(sa.select(table).where(is_moved).order_by(*table.primary_key)).mappings().all()
        )
        connection.execute(sa.delete(table).where(is_moved))
        for row in rows:
            self._sums.correct(driver.cursor(), table, {**row, **changes[row[column]]})
