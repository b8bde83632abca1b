"""`GET|POST limits`, `PATCH|DELETE limits/{id}`, `GET limits/effective`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Response
from marshmallow import RAISE, Schema, ValidationError, fields
from sqlalchemy import Engine

from ...config.limits import UNITS, LimitSchema, definition
from ...limits import changes
from ...limits.limit import Limit
from ...limits.limiter import Limiter
from ...limits.standing import actor_asks, somebody_asks, standings
from ...model import Actor
from ...reading.connection import Source, connected
from ...reading.values import encode
from .blueprint import ID, RecordsBlueprint
from .documents import Document, Parameters, number, text, time
from .errors import InvalidParameters, Refused
from .reader import Reader, json_response

_SCOPE = "`everyone`, or an object such as `{actor: ann}`."


class UsedDocument(Document):
    of = text("What it counts by itself: an actor, group, session, agent, token, or everyone.")
    spent = number("Used by what has ended, in micro-dollars, tokens or requests.")
    held = number("Expected of what is under way.")
    expected = number("At the end of the period, if it goes on like this.")
    resets_at = time("When the period ends, if it does.", allow_none=True)


class LimitDocument(Document):
    id = text("What names it here.")
    source = text("`file` or `api`.")
    created_at = time("When it was made.")
    name = text("What it is known by.")
    scope = fields.Raw(required=True, metadata={"description": _SCOPE})
    models = fields.List(fields.String(), required=True)
    providers = fields.List(fields.String(), required=True)
    clients = fields.List(fields.String(), required=True)
    instead = fields.List(fields.String(), required=True)
    per = text("The period.", required=False)
    usd = fields.Float(required=False)
    tokens = number("Tokens of all kinds.", required=False)
    requests = number("Requests that reach an upstream.", required=False)
    parallel = number("Requests at a time.", required=False)
    mode = text("`shadow`, `warn` or `enforce`.")
    credential = text("`centralized` or `any`.")
    until = time("When it ends.", required=False)
    used = fields.List(fields.Nested(UsedDocument), required=True)


class LimitListDocument(Document):
    count = number("Of all.")
    results = fields.List(fields.Nested(LimitDocument), required=True)


class LimitPatch(Schema):
    """Members of a limit that are to change; `until` may be null."""

    class Meta:
        unknown = RAISE


class EffectiveQuestion(Parameters):
    actor = fields.String(load_default="", metadata={"description": "For administrators: whose."})


_PATCHED: dict[str, Any] = {
    name: fields.Raw(allow_none=name == "until", metadata=field.metadata)
    for name, field in LimitSchema().fields.items()
}
_Patch = LimitPatch.from_dict(_PATCHED, name="LimitPatch")


def add_limits(blueprint: RecordsBlueprint, reader: Reader, limiter: Limiter) -> None:
    @blueprint.answers("/limits", LimitListDocument)
    def list_limits(actor: Actor, values: dict[str, Any]) -> Response:
        """Limits in effect, with what is used of them; who is no administrator sees its own."""
        return _listed(reader, limiter, lambda engine: own_standings(engine, actor))

    @blueprint.answers("/limits/effective", LimitListDocument, EffectiveQuestion)
    def effective_limits(actor: Actor, values: dict[str, Any]) -> Response:
        """The limits under which one falls."""
        whose = values["actor"] or actor.id
        if whose != actor.id and not actor.admin:
            raise Refused(403, "the limits of somebody else are for administrators to see", "admins_only")
        return _listed(reader, limiter, lambda engine: effective(engine, actor, whose))

    @blueprint.answers("/limits", LimitDocument, method="POST", body=(LimitSchema,), status=201,
                       errors=(409,), admins=True)  # fmt: skip
    def create_limit(actor: Actor, values: dict[str, Any], settings: Any) -> Response:
        """Makes a limit. It holds on all hosts within 5 seconds."""
        return _changed(reader, limiter, lambda engine: changes.add(engine, settings, actor.id), 201)

    @blueprint.answers(f"/limits/<{ID}:id>", LimitDocument, method="PATCH", body=(_Patch,),
                       errors=(404, 409), admins=True)  # fmt: skip
    def change_limit(actor: Actor, values: dict[str, Any], body: dict[str, Any], id: str) -> Response:
        """Changes members of a limit; what was used in the present period stays counted."""
        return _changed(reader, limiter, lambda engine: patch(engine, id, body, actor))

    @blueprint.answers(f"/limits/<{ID}:id>", None, method="DELETE", status=204,
                       errors=(404, 409), admins=True)  # fmt: skip
    def remove_limit(actor: Actor, values: dict[str, Any], id: str) -> Response:
        """Ends a limit."""
        reader.ask(lambda engine: changes.end(engine, id, actor.id))
        limiter.refresh()
        return Response(status=204)


def own_standings(source: Source, actor: Actor) -> list[dict[str, Any]]:
    """Returns the limits that an actor may see."""
    with connected(source) as connection:
        return standings(connection, () if actor.admin else (actor_asks(actor),))


def effective(engine: Engine, actor: Actor, whose: str = "") -> list[dict[str, Any]]:
    """Returns the limits under which somebody falls, the actor itself if nobody is named."""
    with connected(engine) as connection:
        asked = actor_asks(actor) if whose in ("", actor.id) else somebody_asks(connection, whose)
        return standings(connection, (asked,))


def _listed(reader: Reader, limiter: Limiter, question: Any) -> Response:
    limiter.wait_until_known()

    def ask(engine: Engine) -> bytes:
        found = question(engine)
        return encode({"count": len(found), "results": found})

    return json_response(reader.ask(ask))


def _changed(reader: Reader, limiter: Limiter, change: Any, status: int = 200) -> Response:
    def run(engine: Engine) -> bytes:
        limit: Limit = change(engine)
        with connected(engine) as connection:
            return encode(next(each for each in standings(connection) if each["id"] == limit.id))

    answer = reader.ask(run)
    limiter.refresh()
    return json_response(answer, status)


def patch(engine: Engine, id: str, body: Mapping[str, Any], actor: Actor) -> Limit:
    """Changes the members of a limit that `body` names.

    Raises InvalidParameters, and what `changes.change` raises.
    """
    old = next((limit for limit in changes.known(engine) if id in (limit.id, limit.name)), None)
    if old is None:
        raise changes.NoSuchLimit(f"there is no limit {id}")
    whole = definition(old.settings)
    if any(unit in body for unit in UNITS):
        whole = {name: value for name, value in whole.items() if name not in UNITS}
    if "parallel" in body:
        whole.pop("per", None)
    whole = {name: value for name, value in {**whole, **body}.items() if value is not None}
    try:
        settings = LimitSchema().load(whole)
    except ValidationError as error:
        raise InvalidParameters(error.messages) from None
    return changes.change(engine, old.id, settings, actor.id)
