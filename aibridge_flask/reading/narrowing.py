"""Finds the days or hours that have interceptions which match, from the sums: where few match, only these are
read.

To count the rows themselves, all would have to be read: a second for each million.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Table

from ..model import Actor
from ..records.sum_tables import people_daily, usage_daily, usage_hourly
from ..records.tables import interceptions
from .pages import MAX_COUNT, Page
from .periods import DAY, HOUR, Period, floor
from .search import Condition, Search, is_running
from .usage_rows import time_of

_i = interceptions.c
_NEIGHBOURS = timedelta(hours=4)  # to skip less would cost a statement more than it saves
_SUMS = ((people_daily, DAY), (usage_daily, DAY), (usage_hourly, HOUR))
"""Those with fewer rows first."""

DENSE = 50  # matches a step, so that few steps are read for a page


@dataclass(frozen=True, slots=True)
class Steps:
    """The days or hours with matches, the newest first, each with how many it has."""

    counts: Mapping[datetime, int]
    length: timedelta

    def page(self, connection: Connection, ordered: sa.Select[Any], page: Page) -> list[Any]:
        """Returns the rows of a page and one more, of a query that is ordered by time, newest first."""
        skipped, steps = self._skip(page.offset)
        return self._read(connection, ordered, steps, replace(page, offset=page.offset - skipped))

    def page_after(
        self, connection: Connection, following: sa.Select[Any], page: Page, moment: datetime
    ) -> list[Any]:
        """Returns the same of a query for what stands after a row of this time."""
        return self._read(connection, following, [step for step in self.counts if step <= moment], page)

    @property
    def count(self) -> tuple[int, bool]:
        """As that of `pages.count_of`."""
        total = sum(self.counts.values())
        return min(total, MAX_COUNT), total > MAX_COUNT

    @property
    def are_dense(self) -> bool:
        return sum(self.counts.values()) >= DENSE * len(self.counts)

    def _skip(self, offset: int) -> tuple[int, list[datetime]]:
        """Returns how many matches stand in the newest steps, of which no page from `offset` on has any, and
        the other steps."""
        skipped, steps = 0, list(self.counts)
        for number, step in enumerate(steps):
            if skipped + self.counts[step] > offset:
                return skipped, steps[number:]
            skipped += self.counts[step]
        return skipped, []

    def _read(
        self, connection: Connection, ordered: sa.Select[Any], steps: Iterable[datetime], page: Page
    ) -> list[Any]:
        rows: list[Any] = []
        last = page.offset + page.limit + 1
        for period in self._runs(steps):
            within = ordered.where(*period.conditions(_i.started_at))
            rows += connection.execute(within.limit(last - len(rows))).all()
            if len(rows) == last:
                break
        return rows[page.offset :]

    def _runs(self, steps: Iterable[datetime]) -> Iterator[Period]:
        """Yields periods that cover the steps, the newest first: those of neighbours as one."""
        run: list[datetime] = []
        for step in steps:
            if run and run[-1] - step > max(_NEIGHBOURS, self.length):
                yield Period((run[-1],), (run[0] + self.length,))
                run = []
            run.append(step)
        if run:
            yield Period((run[-1],), (run[0] + self.length,))


def steps_of(connection: Connection, search: Search, actor: Actor) -> Steps | None:
    """Returns the days or hours in which interceptions match, None if the sums cannot tell."""
    sources = [(table, length) for table, length in _SUMS if _suffices(table, length, search, actor)]
    if search.needs_rows or not search.has_sum_keys or not sources or _are_unsummed(connection):
        return None
    oldest = connection.scalar(sa.select(sa.func.min(_i.started_at)))
    steps = Steps({}, HOUR)
    for table, length in sources if oldest else ():
        counts = _ended(connection, search, actor, floor(oldest, length), table, length)
        for moment in _running(connection, search, actor):
            step = floor(moment, length)
            counts[step] = counts.get(step, 0) + 1
        steps = Steps(dict(sorted(counts.items(), reverse=True)), length)
        if steps.are_dense:
            break
    return steps


def _suffices(table: Table, length: timedelta, search: Search, actor: Actor) -> bool:
    """Whether a table of sums tells the keys of a search apart, and has nothing but its period."""
    return search.columns(actor) <= set(table.c.keys()) and not list(search.period.edges(length))


def _ended(
    connection: Connection, search: Search, actor: Actor, first: datetime, table: Table, length: timedelta
) -> dict[datetime, int]:
    """Returns the matches by the step, from the first on: of those before, sums alone are kept. Of the first,
    some interceptions may be gone.
    """
    at = time_of(table)
    where = [*search.keys(table.c, actor), *search.period.conditions(at), at > first]
    sums = sa.select(at, sa.func.sum(table.c.requests)).where(*where).group_by(at)
    counts = {step: int(count) for step, count in connection.execute(sums)}
    in_first = [
        *search.keys(_i, actor),
        *search.period.conditions(_i.started_at),
        _i.started_at < first + length,
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
