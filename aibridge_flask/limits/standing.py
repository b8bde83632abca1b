"""How much of each limit is used: what is shown of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from time import time
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from ..config.limits import definition
from ..model import Actor
from ..records.sum_tables import group_sets, holds, ledger
from ..records.tables import interceptions
from . import period
from .definitions import limits_of
from .limit import EACH, Asked, Limit, subjects

_MAX_SUBJECTS = 100
_EARLY = 0.02  # of a period: too little to tell how it will end


def standings(connection: Connection, asked: Sequence[Asked] = ()) -> list[dict[str, Any]]:
    """Returns all limits with what is used of them, or those under which somebody falls (one, or none for
    all). Raises SQLAlchemyError.
    """
    limits = limits_of(connection)
    if asked:
        limits = tuple(limit for limit in limits if _is_about(limit, asked[0]))
    return [_standing(connection, limit, asked) for limit in limits]


def actor_asks(actor: Actor) -> Asked:
    return Asked(actor.id, int(time()), groups=actor.groups, token=actor.token_id)


def somebody_asks(connection: Connection, actor_id: str) -> Asked:
    """Returns what is known of an actor, with the groups of its newest interception."""
    c = interceptions.c
    newest = sa.select(c.group_set).where(c.initiator_id == actor_id).order_by(c.started_at.desc()).limit(1)
    names = sa.select(group_sets.c.name).where(group_sets.c.id == newest.scalar_subquery())
    return Asked(actor_id, int(time()), groups=tuple(connection.scalars(names)))


def _is_about(limit: Limit, asked: Asked) -> bool:
    scope = limit.settings.scope
    is_by_id = scope.kind in ("session", "agent", "token") and scope.of == EACH
    return is_by_id or any(subjects(scope, asked))


def _standing(connection: Connection, limit: Limit, asked: Sequence[Asked]) -> dict[str, Any]:
    now = int(time())
    used = _used(connection, limit, period.start(limit.settings.per, now))
    if asked:
        own = set(subjects(limit.settings.scope, asked[0]))
        used = {subject: counts for subject, counts in used.items() if subject in own}
        used |= dict.fromkeys(own - used.keys(), (0, 0))
    fullest = sorted(used.items(), key=lambda item: (-sum(item[1]), item[0]))[:_MAX_SUBJECTS]
    created_at = limit.created_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "id": limit.id,
        "source": limit.source,
        "created_at": created_at,
        **definition(limit.settings),
        "used": [_shown(limit, subject, *counts, now) for subject, counts in fullest],
    }


def _used(connection: Connection, limit: Limit, start: int) -> dict[str, tuple[int, int]]:
    """Returns what was spent and is held, by subject."""
    found: dict[str, tuple[int, int]] = {}
    for table, column, place in ((ledger, "spent", 0), (holds, "held", 1)):
        c = table.c
        query = sa.select(c.subject, sa.func.sum(c[column])).where(
            c.limit_name == limit.name, c.bucket >= start
        )
        for subject, amount in connection.execute(query.group_by(c.subject)).all():
            counts = list(found.get(subject, (0, 0)))
            counts[place] = int(amount)
            found[subject] = (counts[0], counts[1])
    return found


def _shown(limit: Limit, subject: str, spent: int, held: int, now: int) -> dict[str, Any]:
    end = period.end(limit.settings.per, now)
    resets_at = datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if end else None
    expected = _expected(limit.settings.per, spent + held, now)
    return {"of": subject, "spent": spent, "held": held, "expected": expected, "resets_at": resets_at}


def _expected(per: str, used: int, now: int) -> int:
    """Returns what will be used at the end of the period if it goes on like this."""
    start, end = period.start(per, now), period.end(per, now)
    if per in period.STEPS or not end or (now - start) < _EARLY * (end - start):
        return used
    return used * (end - start) // (now - start)
