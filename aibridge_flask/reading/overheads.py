"""How much of the time to the first byte is the bridge's own, in the newest interceptions."""

from __future__ import annotations

from statistics import median, quantiles

import sqlalchemy as sa

from ..model import Actor
from ..records.tables import interceptions
from .connection import Source, connected
from .periods import Period
from .search import Search

_c = interceptions.c
_NEWEST = 500


def overheads(source: Source, actor: Actor, period: Period) -> tuple[float, float, int]:
    """Returns the median and the 95th percentile in milliseconds, and of how many interceptions."""
    query = sa.select(_c.overhead_ms, _c.ended_at.is_not(None)).where(
        *Search().keys(_c, actor), *period.conditions(_c.started_at)
    )
    with connected(source) as connection:
        rows = connection.execute(query.order_by(_c.started_at.desc(), _c.id.desc()).limit(_NEWEST)).all()
    values = sorted(own for own, has_ended in rows if has_ended and own > 0)
    if not values:
        return 0.0, 0.0, 0
    highest = quantiles(values, n=20)[-1] if len(values) > 1 else values[0]
    return median(values), highest, len(values)
