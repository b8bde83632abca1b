"""Tokens: made here, shown once; revoked here. And what to set in clients, which need one."""

from __future__ import annotations

from flask import Response, request
from marshmallow import ValidationError
from sqlalchemy import Engine

from ...client_config.guides import guides, token_note
from ...config import Settings
from ...reading.connection import Source
from ...reading.pages import Page
from ...reading.tokens import list_tokens
from ..api.blueprint import ID
from ..api.errors import InvalidParameters
from ..api.tokens import TokenBody, make_token, revoke_token
from ..index import root_url
from .blueprint import Question, UiBlueprint, Visit, html, see
from .pages import render
from .tables import paging, position, rows_of

_ROWS = 100


def add_tokens(blueprint: UiBlueprint, settings: Settings) -> None:
    def listed(visit: Visit, source: Source, root: str, made: str = "") -> str:
        offset = position(visit.arguments)
        listing = list_tokens(source, visit.actor, Page(_ROWS, offset))
        tokens = {"rows": rows_of(listing), "made": made, "mode": settings.auth.mode}
        clients = {"guides": guides(settings, root), "note": token_note(settings)}
        return render("tokens.html", visit, title="Tokens", **tokens, **clients, **paging(listing, offset))

    @blueprint.page("/tokens")
    def tokens(visit: Visit) -> Question | Response:
        root = root_url(request.environ)
        return lambda source: listed(visit, source, root)

    @blueprint.page("/tokens", "POST")
    def create_token(visit: Visit) -> Question | Response:
        body, root = _body(visit), root_url(request.environ)

        def create(engine: Engine) -> str:
            return listed(visit, engine, root, make_token(engine, visit.actor, body)["token"])

        return html(blueprint.reader.ask(create), 201)

    @blueprint.page(f"/tokens/<{ID}:id>/revoke", "POST")
    def end_token(visit: Visit, id: str) -> Question | Response:
        blueprint.reader.ask(lambda engine: revoke_token(engine, visit.actor, id))
        return see(f"{visit.ui}/tokens")


def _body(visit: Visit) -> dict[str, object]:
    """Returns the form as the body of the records API's `POST tokens`. Raises InvalidParameters."""
    sent = {name: values[0].strip() for name, values in visit.form.items() if values}
    groups = [group.strip() for value in visit.form.get("groups", []) for group in value.split(",")]
    body: dict[str, object] = {
        "groups": [group for group in groups if group],
        "admin": sent.get("admin", "") in ("on", "true", "1", "yes"),
    }
    if sent.get("user"):
        body["user"] = sent["user"]
    days = sent.get("days", "")
    if days:
        body["days"] = int(days) if days.isascii() and days.isdigit() and len(days) < 10 else days
    try:
        loaded: dict[str, object] = TokenBody().load(body)
    except ValidationError as error:
        raise InvalidParameters(error.messages) from None
    if not visit.actor.admin and not loaded["groups"]:
        del loaded["groups"]  # one's own
    return loaded
