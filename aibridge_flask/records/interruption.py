"""Closes the interceptions that a dead worker has left open."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, RowMapping

from .contribution import INTERRUPTED
from .repricing import Repricing
from .tables import interceptions, token_usages

_MESSAGE = "the worker that served it died"
_i, _u = interceptions.c, token_usages.c
_HAS_USAGE = sa.exists().where(_u.interception_id == _i.id)


def close(connection: Connection, repricing: Repricing, worker_id: str, now: Any) -> list[str]:
    """Closes them at the time `now`; returns their ids. What is summed of them is still to be updated.

    The upstream bills what it was sent: where the answer had told no tokens yet, the estimated input counts.
    """
    is_open = (_i.worker_id == worker_id, _i.ended_at.is_(None))
    query = sa.select(interceptions, _HAS_USAGE.label("has_usage")).where(*is_open)
    rows = connection.execute(query.with_for_update(of=interceptions)).mappings().all()
    if not rows:
        return []
    if estimates := [_estimate(row) for row in rows if row["estimated_input"] and not row["has_usage"]]:
        connection.execute(sa.insert(token_usages), estimates)
    end = {"ended_at": now, "error_type": INTERRUPTED, "error_message": _MESSAGE}
    connection.execute(sa.update(interceptions).where(*is_open).values(end))
    repricing.reprice(connection, [{**row, "error_type": INTERRUPTED} for row in rows])
    return [row["id"] for row in rows]


def _estimate(row: RowMapping) -> dict[str, Any]:
    """Returns the row of a usage that was not told. A real one takes its place."""
    return {
        "interception_id": row["id"],
        "turn": 0,
        "input_tokens": row["estimated_input"],
        "metadata": {},
        "created_at": row["started_at"],
    }
