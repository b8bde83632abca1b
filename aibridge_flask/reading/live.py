"""What runs now on all workers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from time import monotonic

import sqlalchemy as sa
from sqlalchemy import Engine

from ..records import database_clock, live
from ..records.live import Listed
from ..records.tables import live_lists, workers
from ..waiting import unpatched

_NOTICE_SECONDS = 2.5  # that workers may take, which look each second
_POLL_SECONDS = 0.05
_ALIVE_SECONDS = 15  # a worker renews its row every ten


def watch(engine: Engine, own_worker: str) -> list[Listed]:
    """Returns what the other workers serve. Who asks watches, for 10 seconds.

    The first time it waits until they have written their lists. Raises SQLAlchemyError.
    """
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        is_watched = live.watch(connection)
    if not is_watched:
        wait_for_workers(engine, own_worker)
    with engine.connect() as connection:
        return _others(live.read_lists(connection), own_worker)


def _others(lists: Mapping[str, list[Listed]], own_worker: str) -> list[Listed]:
    return [listed for worker, each in lists.items() if worker != own_worker for listed in each]


def wait_for_workers(engine: Engine, own_worker: str) -> None:
    """Waits until each worker that lives has written its list, and so has read the stops, from now on.

    One that was just killed does not: then it waits as long as they may take. Raises SQLAlchemyError.
    """
    with engine.connect() as connection:
        since = database_clock.read(connection)
    deadline = monotonic() + _NOTICE_SECONDS
    while _silent(engine, since) - {own_worker} and monotonic() < deadline:
        unpatched("time", "sleep")(_POLL_SECONDS)


def _silent(engine: Engine, since: datetime) -> set[str]:
    """Returns the workers that live and have written no list since then."""
    alive = workers.c.seen_at > database_clock.in_seconds(engine.dialect.name, -_ALIVE_SECONDS)
    with engine.connect() as connection:
        living = connection.scalars(sa.select(workers.c.id).where(alive))
        lists = sa.select(live_lists.c.worker_id).where(live_lists.c.seen_at > since)
        return {*living} - {*connection.scalars(lists)}
