"""The periods of limits, in UTC. Times are whole seconds since the epoch."""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, datetime

MINUTE, HOUR, DAY = 60, 3600, 86400
STEPS = {"minute": 1, "hour": 60}
"""Of the periods that slide: in steps of so many seconds."""
_SLIDING = {"minute": MINUTE, "hour": HOUR}
_MONDAY = 4 * DAY  # the epoch was a Thursday


def bucket(per: str, at: int) -> int:
    """Returns what an interception of that time counts in: its period's start, or its step's.

    >>> bucket("week", 0) == -3 * DAY, bucket("hour", 3725), bucket("total", 5)
    (True, 3720, 0)
    """
    if per in STEPS:
        return at - at % STEPS[per]
    if per == "day":
        return at - at % DAY
    if per == "week":
        return at - (at - _MONDAY) % (7 * DAY)
    if per == "month":
        first = datetime.fromtimestamp(at, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        return int(first.timestamp())
    return 0


def start(per: str, now: int) -> int:
    """Returns the first bucket that counts now."""
    return bucket(per, now - _SLIDING[per]) + STEPS[per] if per in STEPS else bucket(per, now)


def end(per: str, now: int) -> int:
    """Returns when the present period ends, 0 if it never does. A sliding one ends when all of now has left.

    >>> end("month", bucket("month", 1_700_000_000)) - bucket("month", 1_700_000_000) == 30 * DAY
    True
    """
    if per in STEPS:
        return now + _SLIDING[per]
    if per == "month":
        first = datetime.fromtimestamp(bucket(per, now), UTC)
        return int(first.timestamp()) + monthrange(first.year, first.month)[1] * DAY
    lengths = {"day": DAY, "week": 7 * DAY}
    return bucket(per, now) + lengths[per] if per in lengths else 0


def leaves(per: str, bucket: int) -> int:
    """Returns when a step of a sliding period no longer counts."""
    return bucket + _SLIDING[per]
