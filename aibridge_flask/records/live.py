"""What workers tell each other while somebody watches: what each serves now, and which sessions are stopped.

A view says so for some seconds. Then each worker writes its list each second, and reads the stops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from importlib import import_module
from time import monotonic
from typing import Any, Protocol

import msgspec
import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy import Connection

from . import database_clock
from .events import Started
from .rows import clean_text, stored_name
from .tables import live_lists, live_stops, live_views

VIEW_SECONDS = 10
STOP_SECONDS = 60
_KEPT_SECONDS = 60  # the list of a worker that was killed
_VIEW = "live"


class Listed(Struct, frozen=True):
    """An interception that is served now, as the API shows it. `tokens` are those known of so far."""

    id: str
    initiator_id: str
    client: str
    session_id: str
    model: str
    age_ms: int
    bytes: int
    tokens: int
    state: str


class Stop(Struct, frozen=True):
    """An interception that is to end, and the session that is refused from then on; without a session,
    requests of the actor for this model. The times are of this process's monotonic clock.
    """

    id: str
    initiator_id: str
    session_id: str
    model: str
    made_at: float
    ends_at: float

    def covers(self, started: Started) -> bool:
        """Whether it is about the session of an interception."""
        if self.initiator_id != stored_name(started.initiator_id):
            return False
        session_id = clean_text(started.client_session_id)
        return session_id == self.session_id and (bool(session_id) or clean_text(started.model) == self.model)


Exchange = Callable[[Connection, str], None]
"""Called each second with a connection, in a transaction, and the worker's id."""


def probe(connection: Connection, worker_id: str) -> None:
    """Asks the database for nothing."""
    connection.execute(sa.select(sa.literal(1)))


class Running(Protocol):
    """What a worker serves now. Both are called in another thread."""

    def list(self) -> list[Listed]: ...
    def stop(self, stops: Sequence[Stop]) -> None: ...


class LiveExchange:
    """One worker's part in it. Called each second, in a transaction."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._has_rows = True  # perhaps: stops that were made before this worker began

    def __call__(self, connection: Connection, worker_id: str) -> None:
        is_watched = _is_watched(connection)
        if not (is_watched or self._has_rows):
            return
        _delete_old(connection)
        stops = read_stops(connection)
        self._running.stop(stops)
        self._has_rows = is_watched or bool(stops)
        if self._has_rows:
            values = {"interceptions": msgspec.json.encode(self._running.list()).decode()}
            now = database_clock.in_seconds(connection.dialect.name, 0)
            _upsert(connection, live_lists, {"worker_id": worker_id}, {**values, "seen_at": now})
        else:
            connection.execute(sa.delete(live_lists).where(live_lists.c.worker_id == worker_id))


def watch(connection: Connection) -> bool:
    """Says that somebody watches; returns whether somebody has before, so that the lists are new."""
    dialect = connection.dialect.name
    is_watched = _is_watched(connection)
    if not _is_watched(connection, VIEW_SECONDS // 2):
        until = database_clock.in_seconds(dialect, VIEW_SECONDS)
        _upsert(connection, live_views, {"name": _VIEW}, {"until": until})
    return is_watched


def read_lists(connection: Connection) -> dict[str, list[Listed]]:
    """Returns the lists by worker, with ages as of now."""
    now, found = database_clock.read(connection), {}
    for row in connection.execute(sa.select(live_lists)):
        milliseconds = max(0, round((now - row.seen_at).total_seconds() * 1000))
        if milliseconds < VIEW_SECONDS * 1000:
            listed = msgspec.json.decode(row.interceptions, type=list[Listed])
            found[str(row.worker_id)] = [_older(each, milliseconds) for each in listed]
    return found


def _older(listed: Listed, milliseconds: int) -> Listed:
    return msgspec.structs.replace(listed, age_ms=listed.age_ms + milliseconds)


def add_stop(connection: Connection, listed: Listed) -> None:
    """Writes that an interception is to end, and its session to be refused."""
    dialect = connection.dialect.name
    model = "" if listed.session_id else listed.model
    names = {"initiator_id": listed.initiator_id, "session_id": listed.session_id, "model": model}
    times = {"made_at": 0, "until": STOP_SECONDS}
    moments = {name: database_clock.in_seconds(dialect, seconds) for name, seconds in times.items()}
    _upsert(connection, live_stops, {"id": listed.id}, {**names, **moments})


def read_stops(connection: Connection) -> list[Stop]:
    """Returns the stops that stand."""
    now, clock = database_clock.read(connection), monotonic()
    rows = connection.execute(sa.select(live_stops).where(live_stops.c.until > now)).all()

    def at(moment: datetime) -> float:
        return clock + (moment - now).total_seconds()

    return [
        Stop(row.id, row.initiator_id, row.session_id, row.model, at(row.made_at), at(row.until))
        for row in rows
    ]


def _is_watched(connection: Connection, seconds: int = 0) -> bool:
    """Whether somebody watches, and will in so many seconds."""
    moment = database_clock.in_seconds(connection.dialect.name, seconds)
    query = sa.select(live_views.c.name).where(live_views.c.name == _VIEW, live_views.c.until > moment)
    return connection.execute(query).first() is not None


def _delete_old(connection: Connection) -> None:
    dialect = connection.dialect.name
    old = live_lists.c.seen_at < database_clock.in_seconds(dialect, -_KEPT_SECONDS)
    connection.execute(sa.delete(live_lists).where(old))
    connection.execute(
        sa.delete(live_stops).where(live_stops.c.until < database_clock.in_seconds(dialect, 0))
    )


def _upsert(connection: Connection, table: sa.Table, key: dict[str, Any], values: dict[str, Any]) -> None:
    insert = import_module(f"sqlalchemy.dialects.{connection.dialect.name}").insert(table)
    statement = insert.values(**key, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=list(key), set_=values))
