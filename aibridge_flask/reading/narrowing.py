"""Finds the hours that have interceptions which match, from the sums: where few match, only these are read.

To count the rows themselves, all would have to be read: a second for each million.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from ..model import Actor
from ..records.sum_tables import usage_hourly
from ..records.tables import interceptions
from .pages import MAX_COUNT, Page
from .periods import Period, hour_of
from .search import Condition, Search, is_running

_i, _u = interceptions.c, usage_hourly.c
_HOUR = timedelta(hours=1)
_NEIGHBOURS = timedelta(hours=4)  # to skip less would cost a statement more than it saves


@dataclass(frozen=True, slots=True)
class Hours:
    """The hours with matches, the newest first, each with how many it has."""

    counts: Mapping[datetime, int]

    def page(self, connection: Connection, ordered: sa.Select[Any], page: Page) -> list[Any]:
        """Returns the rows of a page and one more, of a query that is ordered by time, newest first."""
        skipped, hours = self._skip(page.offset)
        return _page(connection, ordered, hours, replace(page, offset=page.offset - skipped))

    def page_after(
        self, connection: Connection, following: sa.Select[Any], page: Page, moment: datetime
    ) -> list[Any]:
        """Returns the same of a query for what stands after a row of this time."""
        return _page(connection, following, [hour for hour in self.counts if hour <= moment], page)

    @property
    def count(self) -> tuple[int, bool]:
        """As that of `pages.count_of`."""
        total = sum(self.counts.values())
        return min(total, MAX_COUNT), total > MAX_COUNT

    def _skip(self, offset: int) -> tuple[int, list[datetime]]:
        """Returns how many matches stand in the newest hours, of which no page from `offset` on has any, and
        the other hours."""
        skipped, hours = 0, list(self.counts)
        for number, hour in enumerate(hours):
            if skipped + self.counts[hour] > offset:
                return skipped, hours[number:]
            skipped += self.counts[hour]
        return skipped, []


def _page(
    connection: Connection, ordered: sa.Select[Any], hours: Iterable[datetime], page: Page
) -> list[Any]:
    rows: list[Any] = []
    last = page.offset + page.limit + 1
    for period in _runs(hours):
        within = ordered.where(*period.conditions(_i.started_at))
        rows += connection.execute(within.limit(last - len(rows))).all()
        if len(rows) == last:
            break
    return rows[page.offset :]


def _runs(hours: Iterable[datetime]) -> Iterator[Period]:
    """Yields periods that cover the hours, the newest first: those of neighbours as one."""
    run: list[datetime] = []
    for hour in hours:
        if run and run[-1] - hour > _NEIGHBOURS:
            yield Period((run[-1],), (run[0] + _HOUR,))
            run = []
        run.append(hour)
    if run:
        yield Period((run[-1],), (run[0] + _HOUR,))


def hours_of(connection: Connection, search: Search, actor: Actor) -> Hours | None:
    """Returns the hours in which interceptions match, None if the sums cannot tell."""
    period = search.period
    is_on_the_hour = not list(period.edges())
    if search.needs_rows or not search.has_sum_keys or not is_on_the_hour or _are_unsummed(connection):
        return None
    oldest = connection.scalar(sa.select(sa.func.min(_i.started_at)))
    if oldest is None:
        return Hours({})
    counts = _ended(connection, search, actor, hour_of(oldest))
    for moment in _running(connection, search, actor):
        counts[hour_of(moment)] = counts.get(hour_of(moment), 0) + 1
    return Hours(dict(sorted(counts.items(), reverse=True)))


def _ended(connection: Connection, search: Search, actor: Actor, first: datetime) -> dict[datetime, int]:
    """Returns the matches by the hour, from the first on: of the hours before, sums alone are kept. Of the
    first, some interceptions may be gone.
    """
    where = [*search.keys(_u, actor), *search.period.conditions(_u.hour), _u.hour > first]
    sums = sa.select(_u.hour, sa.func.sum(_u.requests)).where(*where).group_by(_u.hour)
    counts = {hour: int(count) for hour, count in connection.execute(sums)}
    in_first = [
        *search.keys(_i, actor),
        *search.period.conditions(_i.started_at),
        _i.started_at < first + _HOUR,
    ]
    rows = sa.select(sa.func.count()).select_from(interceptions).where(*in_first, _i.ended_at.is_not(None))
    found = connection.scalar(rows)
    return {**counts, first: found} if found else counts


def _running(connection: Connection, search: Search, actor: Actor) -> Sequence[datetime]:
    conditions = [*search.keys(_i, actor), *search.period.conditions(_i.started_at)]
    return connection.scalars(sa.select(_i.started_at).where(is_running(), *conditions)).all()


def _are_unsummed(connection: Connection) -> bool:
    """Whether there are interceptions of a version before that no sum has yet."""
    unsummed: Condition = _i.contributed.is_(sa.null())
    return connection.scalar(sa.select(sa.literal(1)).where(unsummed).limit(1)) is not None
