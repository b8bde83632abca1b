"""The hours, days or months of a period, as results of the records API name them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from ...reading.periods import DAY, HOUR
from .filters import Filters
from .numbers import date_or_time, iso

TIMES = ("hour", "day", "month")
_LENGTHS = {len("2026-11"): "month", len("2026-11-08"): "day"}
_SHORT, _LONG = timedelta(days=2), timedelta(days=190)


def step_of(filters: Filters) -> str:
    """Returns the key by which a period is drawn: hour, day or month."""
    length = filters.end - filters.after
    return "hour" if length <= _SHORT else "day" if length <= _LONG else "month"


def steps(filters: Filters) -> list[str]:
    """Returns the names of the steps of a period."""
    step = step_of(filters)
    return [_name(moment, step) for moment in _moments(filters, step)]


def _moments(filters: Filters, step: str) -> Iterator[datetime]:
    moment = _begin(filters.after, step)
    while moment < filters.end:
        yield moment
        moment = _next(moment, step)


def _begin(moment: datetime, step: str) -> datetime:
    hour = moment.replace(minute=0, second=0, microsecond=0)
    return hour if step == "hour" else hour.replace(hour=0, day=1 if step == "month" else hour.day)


def _next(begin: datetime, step: str) -> datetime:
    if step == "month":
        return (begin + timedelta(days=31)).replace(day=1)
    return begin + (HOUR if step == "hour" else DAY)


def _name(moment: datetime, step: str) -> str:
    return iso(moment) if step == "hour" else f"{moment:%Y-%m-%d}" if step == "day" else f"{moment:%Y-%m}"


def _parsed(name: str) -> tuple[datetime, str]:
    """Returns when a step begins, and what it is."""
    step = _LENGTHS.get(len(name), "hour")
    whole = {"month": f"{name}-01T00:00:00Z", "day": f"{name}T00:00:00Z"}.get(step, name)
    return datetime.fromisoformat(whole), step


def label(name: str) -> str:
    """Returns what a chart calls a step.

    >>> label("2026-11-08"), label("2026-11-08T13:00:00Z"), label("2026-11")
    ('8 Nov', '8 Nov 13:00', 'Nov 2026')
    """
    moment, step = _parsed(name)
    if step == "month":
        return f"{moment:%b %Y}"
    day = f"{moment.day} {moment:%b}"
    return day if step == "day" else f"{day} {moment:%H:%M}"


def period_of(name: str) -> dict[str, str]:
    """Returns the parameters for the period of a step.

    >>> period_of("2026-12")["started_before"]
    '2027-01-01'
    """
    begin, step = _parsed(name)
    return {"started_after": date_or_time(begin), "started_before": date_or_time(_next(begin, step))}
