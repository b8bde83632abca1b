"""Periods of time, and how sums by the hour cover them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement

from .errors import BadQuestion

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Period:
    """From each of `after` on and before each of `before`."""

    after: tuple[datetime, ...] = ()
    before: tuple[datetime, ...] = ()

    def narrowest(self) -> Period:
        """Returns the same period with one start and one end at most."""
        after, before = self.after, self.before
        return Period((max(after),) if after else (), (min(before),) if before else ())

    def within(self, other: Period) -> Period:
        """Returns what both have in common."""
        return Period(self.after + other.after, self.before + other.before).narrowest()

    def conditions(self, column: ColumnElement[Any]) -> list[ColumnElement[bool]]:
        """Returns the conditions that a time is in the period."""
        return [*(column >= moment for moment in self.after), *(column < moment for moment in self.before)]

    def hours(self) -> tuple[Period, ...]:
        """Returns the part that begins and ends on the hour, or ()."""
        return self.whole(HOUR)

    def whole(self, step: timedelta) -> tuple[Period, ...]:
        """Returns the part that consists of whole hours or days, or ()."""
        after = tuple(_ceil(moment, step) for moment in self.after)
        inner = Period(after, tuple(floor(moment, step) for moment in self.before))
        return () if inner.is_empty else (inner,)

    def edges(self, step: timedelta = HOUR) -> Iterator[Period]:
        """Yields what is left of the period beside its whole hours or days: itself if it has none."""
        if not self.whole(step):
            yield self
            return
        for moment in self.after:
            if _ceil(moment, step) != moment:
                yield Period((moment,), (_ceil(moment, step),))
        for moment in self.before:
            if floor(moment, step) != moment:
                yield Period((floor(moment, step),), (moment,))

    @property
    def is_empty(self) -> bool:
        return any(after >= before for after in self.after for before in self.before)


def parse_time(field: str, value: str) -> datetime:
    """Parses a time with its zone. Raises BadQuestion for `field`.

    >>> parse_time("q", "2026-01-31T12:00:00+02:00")
    datetime.datetime(2026, 1, 31, 10, 0, tzinfo=datetime.timezone.utc)
    """
    try:
        time = datetime.fromisoformat(value)
        moment = time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadQuestion(field, "a time such as 2026-01-31T12:00:00Z is expected") from None
    if time.tzinfo is None:
        raise BadQuestion(field, "a time with its zone is expected (RFC 3339)")
    return moment


def floor(moment: datetime, step: timedelta) -> datetime:
    """Returns when the hour or day of a time begins."""
    return moment - (moment - _FIRST) % step


def _ceil(moment: datetime, step: timedelta) -> datetime:
    start = floor(moment, step)
    return moment if start == moment else min(start, _LAST - step) + step
