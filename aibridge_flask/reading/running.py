"""Interceptions that have no end yet, as the database knows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Engine

from ..model import Actor
from ..records.events import now
from ..records.tables import interceptions
from .connection import connected
from .search import Search
from .usage_rows import SESSION_ID

Result = dict[str, Any]
_c = interceptions.c
_MOST = 200


def running(engine: Engine, actor: Actor) -> Sequence[Result]:
    """Returns what runs now and the actor may see, the oldest first. `bytes` and `tokens` are not known."""
    names = (_c.id, _c.initiator_id, _c.client, _c.model, SESSION_ID.label("session_id"), _c.started_at)
    query = sa.select(*names).where(_c.ended_at.is_(None), *Search().keys(_c, actor))
    with connected(engine) as connection:
        rows = connection.execute(query.order_by(_c.started_at, _c.id).limit(_MOST)).mappings().all()
    unknown = {"bytes": None, "tokens": None, "state": "running"}
    return [
        {**row, **unknown, "age_ms": (now() - row["started_at"]).total_seconds() * 1000.0} for row in rows
    ]
