"""Deletes by age: first what was written, much later whole interceptions. Sums stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy import Connection

from ..config.settings import RecordSettings
from .content import HAS_CONTENT, delete_content
from .database import read_info, set_info
from .events import EPOCH
from .slices import Slices
from .sum_check import SUMS_SINCE
from .tables import interceptions

_READ_ROWS = 500
_i = interceptions.c
_ORDER = (_i.started_at, _i.id)
_IS_SUMMED = _i.contributed.is_not(None)  # else it would be missing in the sums
_POSITIONS: sa.Select[Any] = sa.select(*_ORDER, HAS_CONTENT).order_by(*_ORDER).limit(_READ_ROWS)
Renew = Callable[[Connection], None]
"""Called at the beginning of each transaction that deletes; may raise."""


class Cutoffs(Struct, frozen=True):
    """The content of interceptions that started before `content` has expired, and all of those from before
    `usage`. EPOCH: nothing has.
    """

    content: datetime
    usage: datetime


class Expired(Struct, frozen=True):
    """How many interceptions have content that has expired, how many have expired as a whole, and the start
    of the oldest, if there is one.
    """

    contents: int = 0
    interceptions: int = 0
    oldest: tuple[datetime, ...] = ()

    @property
    def total(self) -> int:
        return self.contents + self.interceptions


def cutoffs(settings: RecordSettings, now: datetime) -> Cutoffs:
    """Returns the cutoffs of the settings."""
    days = (settings.retention_days, settings.usage_retention_days)
    content, usage = (now - timedelta(days=count) if count else EPOCH for count in days)
    return Cutoffs(max(content, usage), usage)


def measure(slices: Slices, cutoffs: Cutoffs) -> Expired:
    """Counts what `delete` would delete. Raises SQLAlchemyError, Stopped."""
    query = sa.select(sa.func.count(), sa.func.min(_i.started_at)).where(
        _i.started_at < cutoffs.usage, _IS_SUMMED
    )
    whole, first = slices.read(lambda connection: connection.execute(query).one())
    contents, starts = 0, [first] * bool(whole)
    for started_at, _ in _with_content(slices, cutoffs.usage, cutoffs.content):
        contents += 1
        starts = starts or [started_at]
    return Expired(contents, whole, tuple(starts))


def delete(slices: Slices, cutoffs: Cutoffs, renew: Renew, since: datetime = EPOCH) -> Expired:
    """Deletes what has expired, of interceptions that started at `since` or later if it is content.

    Raises SQLAlchemyError, Stopped, and what `renew` raises: what was deleted before stays deleted.
    """
    whole = 0
    while count := slices.write(partial(_delete_oldest, renew, cutoffs.usage, slices.size)):
        whole += count
    contents, ids = 0, []
    for _, id in _with_content(slices, max(since, cutoffs.usage), cutoffs.content):
        ids.append(id)
        if len(ids) >= slices.size:
            slices.write(partial(_delete_content, renew, ids))
            contents, ids = contents + len(ids), []
    if ids:
        slices.write(partial(_delete_content, renew, ids))
    return Expired(contents + len(ids), whole)


def _with_content(slices: Slices, since: datetime, until: datetime) -> Iterator[tuple[datetime, str]]:
    """Yields start and id of the interceptions in this time that have content, the oldest first."""
    position: tuple[Any, ...] = (since, "")
    has_more = since < until
    while has_more:
        query = _POSITIONS.where(_i.started_at < until, sa.tuple_(*_ORDER) > position)
        rows = slices.read(partial(_all, query))
        yield from ((started_at, id) for started_at, id, has_content in rows if has_content)
        has_more = len(rows) == _READ_ROWS
        position = tuple(rows[-1][:2]) if rows else position


def _all(query: sa.Select[Any], connection: Connection) -> Sequence[Any]:
    return connection.execute(query).all()


def _delete_oldest(renew: Renew, until: datetime, count: int, connection: Connection) -> int:
    """Deletes the oldest interceptions, with all that belongs to them; returns how many."""
    renew(connection)
    oldest = sa.select(_i.id).where(_i.started_at < until, _IS_SUMMED).order_by(*_ORDER).limit(count)
    ids = list(connection.scalars(oldest))
    if ids:
        connection.execute(sa.delete(interceptions).where(_i.id.in_(ids)))
        _advance_sums_since(connection, until)
    return len(ids)


def _advance_sums_since(connection: Connection, until: datetime) -> None:
    kept = connection.scalar(sa.select(sa.func.min(_i.started_at)))
    since = min(kept or until, until).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    set_info(connection, SUMS_SINCE, max(since, read_info(connection).get(SUMS_SINCE, "")))


def _delete_content(renew: Renew, ids: Sequence[str], connection: Connection) -> None:
    renew(connection)
    delete_content(connection, ids)
