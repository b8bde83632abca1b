"""Tombstones of people whose records were erased: what a late log brings of them from before is counted, and
not kept.

They are known by a digest. Interceptions stay under the name ERASED, which nobody else should have.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Dialect

from . import database_clock
from .content import without_words
from .events import (
    CredentialUsed,
    Ended,
    Hold,
    ModelThought,
    Prompt,
    PromptAnswered,
    Started,
    StoredObject,
    ToolUsage,
)
from .statement import IDS
from .sum_tables import erasures

ERASED = "erased"
NAMELESS: Mapping[str, Any] = {
    "initiator_id": ERASED,
    "metadata": {},
    "user_agent": "",
    "credential_hint": "",
    "token_id": "",
}
"""The columns of an interception whose initiator was erased."""

Rows = Mapping[Any, list[dict[str, Any]]]
_DROPPED = {
    Prompt: "interception_id",
    ModelThought: "interception_id",
    Hold: "interception_id",
    PromptAnswered: "which",
    CredentialUsed: "which",
}
_CHANGED: Mapping[Any, tuple[str, Any]] = {
    Started: ("id", lambda row: NAMELESS),
    Ended: ("which", lambda row: {"new_error_message": ""}),
    ToolUsage: (
        "interception_id",
        lambda row: {"input": "", "invocation_error": without_words(row["invocation_error"])},
    ),
}
_ALL = "SELECT digest, erased_at FROM erasures"
_OF_ERASED = "SELECT id FROM interceptions WHERE id IN ({ids}) AND initiator_id = 'erased'"


def digest(actor_id: str) -> str:
    return sha256(actor_id.encode("utf-8", "replace")).hexdigest()


def add(connection: Connection, actor_id: str) -> None:
    """Adds a tombstone. Transactions that have not seen it are over when this returns."""
    dialect = connection.dialect.name
    if dialect == "postgresql":
        connection.execute(sa.text("SET LOCAL lock_timeout = '1s'"))
        connection.execute(sa.text("LOCK TABLE erasures IN ACCESS EXCLUSIVE MODE"))
    connection.execute(sa.delete(erasures).where(erasures.c.digest == digest(actor_id)))
    values = {"digest": digest(actor_id), "erased_at": database_clock.in_seconds(dialect, 0)}
    connection.execute(sa.insert(erasures).values(values))


class Tombstones:
    """Takes from new rows what belongs to erased people, on the driver's cursor."""

    def __init__(self, dialect: Dialect) -> None:
        self._of_erased = _OF_ERASED.format(ids=IDS[dialect.name])

    def without_erased(self, cursor: Any, rows: Rows) -> Rows:
        """Returns the rows without the content and names of erased people."""
        cursor.execute(_ALL)
        times = {digest: _time(moment) for digest, moment in cursor.fetchall()}
        if not times:
            return rows
        late = {row["id"] for row in rows[Started] if _is_late(times, row["initiator_id"], row["started_at"])}
        late |= self._known(cursor, rows)
        objects = [
            row for row in rows[StoredObject] if not _is_late(times, row["initiator_id"], row["created_at"])
        ]
        kept = {kind: [row for row in rows[kind] if row[key] not in late] for kind, key in _DROPPED.items()}
        changed = {kind: _changed(rows[kind], late, *how) for kind, how in _CHANGED.items()}
        return {**rows, **kept, **changed, StoredObject: objects}

    def _known(self, cursor: Any, rows: Rows) -> set[str]:
        """Returns the interceptions whose start was written before."""
        keys = {**_DROPPED, **{kind: key for kind, (key, _) in _CHANGED.items()}}
        ids = sorted({row[key] for kind, key in keys.items() for row in rows[kind]})
        if not ids:
            return set()
        cursor.execute(self._of_erased, (json.dumps(ids),))
        return {id for (id,) in cursor.fetchall()}


def _is_late(times: Mapping[str, datetime], actor_id: str, moment: datetime) -> bool:
    erased_at = times.get(digest(actor_id))
    return erased_at is not None and moment <= erased_at


def _changed(
    rows: list[dict[str, Any]], late: Collection[str], key: str, change: Any
) -> list[dict[str, Any]]:
    return [{**row, **change(row)} if row[key] in late else row for row in rows]


def _time(value: Any) -> datetime:
    """Returns a time of a column; SQLite's are text without a zone."""
    found: datetime = datetime.fromisoformat(value) if isinstance(value, str) else value
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found
