"""`GET live`, `DELETE live/{id}`: what runs now on all workers, and its end."""

from __future__ import annotations

from typing import Any

from flask import Response
from marshmallow import fields
from msgspec import Struct
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ...in_flight import InFlight
from ...model import Actor
from ...reading.errors import NotFound
from ...reading.live import wait_for_workers, watch
from ...reading.values import encode
from ...records import audit, live
from ...records.live import Listed, Stop
from ...records.rows import stored_name
from .blueprint import ID, RecordsBlueprint
from .documents import Document, flag, number, text
from .errors import TooSlow
from .reader import Reader, json_response


class ListedDocument(Document):
    id = text("The interception.")
    initiator_id = text("The actor.")
    client = text("The client's name.")
    session_id = text("The client's session; empty: it has none.")
    model = text("The model that was asked for.")
    age_ms = number("Milliseconds since it began.")
    bytes = number("What the upstream has sent so far.")
    tokens = number("Tokens so far, of all kinds; while it streams, those of the answer are estimated.")
    state = text("`waiting`, `retrying`, `streaming` or `tool`.")


class LiveDocument(Document):
    count = number("How many.")
    results = fields.List(fields.Nested(ListedDocument), required=True)
    own_worker_only = flag("The database is away: it is what the worker serves that answers.")


class Watched(Struct, frozen=True):
    """What runs now, the oldest first; only that of one worker if the database is away."""

    count: int
    results: list[Listed]
    own_worker_only: bool


class Live:
    """What runs now on all workers."""

    def __init__(self, reader: Reader, in_flight: InFlight) -> None:
        self._reader, self._in_flight = reader, in_flight

    def seen_by(self, actor: Actor) -> Watched:
        """Returns what the actor may see."""
        try:
            everywhere, is_away = self._reader.ask(self._list, is_fresh=False), False
        except (SQLAlchemyError, OSError, TooSlow):
            everywhere, is_away = self._in_flight.list(), True
        found = [each for each in everywhere if actor.admin or each.initiator_id == stored_name(actor.id)]
        return Watched(len(found), sorted(found, key=lambda each: -each.age_ms), is_away)

    def stop(self, actor: Actor, id: str) -> None:
        """Ends an interception, and refuses its session for a minute. Raises NotFound, SQLAlchemyError."""

        def stop(engine: Engine) -> list[Stop]:
            listed = self._find(engine, id)
            before = {name: getattr(listed, name) for name in ("initiator_id", "session_id", "model")}
            with engine.connect().execution_options(writes=True) as connection, connection.begin():
                live.add_stop(connection, listed)
                audit.add(connection, actor.id, "live.stop", id, before)
                return live.read_stops(connection)

        stops = self._reader.ask(stop, is_fresh=False)
        self._in_flight.stop(stops)
        self._reader.ask(self._wait, is_fresh=False)
        self._in_flight.stop(stops, all_know=True)

    def _find(self, engine: Engine, id: str) -> Listed:
        """Raises NotFound. One that has just begun is not in the list of another worker yet."""
        for wait in (False, True):
            if wait:
                self._wait(engine)
            for listed in self._list(engine):
                if listed.id == id:
                    return listed
        raise NotFound("there is no such interception in flight")

    def _wait(self, engine: Engine) -> None:
        wait_for_workers(engine, self._reader.recorder.worker_id)

    def _list(self, engine: Engine) -> list[Listed]:
        others = watch(engine, self._reader.recorder.worker_id)
        return [*others, *self._in_flight.list()]


def add_live(blueprint: RecordsBlueprint, reader: Reader, in_flight: InFlight) -> None:
    running = Live(reader, in_flight)

    @blueprint.answers("/live", LiveDocument)
    def list_live(actor: Actor, values: dict[str, Any]) -> Response:
        """What runs now, the oldest first."""
        return json_response(encode(running.seen_by(actor)))

    @blueprint.answers(f"/live/<{ID}:id>", None, method="DELETE", status=204, errors=(404,), admins=True)
    def stop_live(actor: Actor, values: dict[str, Any], id: str) -> Response:
        """Ends one, and refuses its session for a minute; without one, the actor's requests for the model."""
        running.stop(actor, id)
        return Response(status=204)
