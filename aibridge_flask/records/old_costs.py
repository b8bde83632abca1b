"""What is known of the costs of interceptions that a version wrote which priced no single usage."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy import Connection

from .costs import PRICED, UNPRICED
from .tables import interceptions, token_usages

_i, _u = interceptions.c, token_usages.c
_count = sa.select(sa.func.count()).where(_u.interception_id == _i.id).scalar_subquery()
_STATUS = sa.case((_i.cost_micros.is_(None), UNPRICED), else_=PRICED)


def fill(connection: Connection, ids: Collection[str]) -> None:
    """Sets the status of costs, and the cost of a usage that is the only one; the others' stay unknown."""
    is_old = (_i.id.in_(ids), _i.cost_status == "", _i.ended_at.is_not(None))
    only = sa.select(_i.id).where(*is_old, _count == 1)
    cost = sa.select(_i.cost_micros).where(_i.id == _u.interception_id).scalar_subquery()
    connection.execute(
        sa.update(token_usages)
        .where(_u.interception_id.in_(only), _u.cost_micros.is_(None))
        .values(cost_micros=cost)
    )
    connection.execute(sa.update(interceptions).where(*is_old, _count > 0).values(cost_status=_STATUS))
