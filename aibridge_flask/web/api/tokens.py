"""`GET tokens`, `POST tokens`, `DELETE tokens/{id}`.

Who is no administrator has its own: with its own groups, without admin rights, and never longer than the
token that it uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from flask import Response
from marshmallow import RAISE, Schema, ValidationError, fields, validate
from sqlalchemy import Engine

from ...model import Actor, identifier
from ...reading import tokens as queries
from ...reading.values import encode
from ...records import tokens
from .blueprint import ID, RecordsBlueprint
from .documents import Document, flag, listing, text, texts, time
from .errors import Refused
from .questions import AfterQuestion, page_of
from .reader import Reader, json_response

_MAX_DAYS = 36_500
_MAX_GROUPS = 100


class TokenDocument(Document):
    id = text("What names it here.")
    user = text("Whose it is.")
    groups = texts("The user's groups.")
    admin = flag("May see everything.")
    hint = text("The masked token.")
    created_at = time("When it was made.")
    expires_at = time("When it ends, if it does.", allow_none=True)
    revoked_at = time("When it was revoked, if it was.", allow_none=True)
    last_used_at = time("When it was used, if it was.", allow_none=True)


class NewTokenDocument(TokenDocument):
    token = text("The token. It is shown this once.")


def _check_name(name: str) -> None:
    if not name.strip() or not name.isprintable() or name != identifier(name):
        raise ValidationError("one line of text is expected")


class TokenBody(Schema):
    class Meta:
        unknown = RAISE

    user = fields.String(validate=_check_name, metadata={"description": "Whose it is; default: yours."})
    groups = fields.List(fields.String(validate=_check_name), validate=validate.Length(max=_MAX_GROUPS))
    admin = fields.Boolean(load_default=False, truthy={True}, falsy={False})
    days = fields.Integer(
        load_default=0,
        strict=True,
        validate=validate.Range(0, _MAX_DAYS),
        metadata={"description": "Days of validity; 0: for ever."},
    )


def add_tokens(blueprint: RecordsBlueprint, reader: Reader) -> None:
    @blueprint.answers("/tokens", listing("TokenListDocument", TokenDocument), AfterQuestion)
    def list_tokens(actor: Actor, values: dict[str, Any]) -> Response:
        """Gateway tokens without their text, newest first."""
        page = page_of(values)
        return reader.list(lambda engine: queries.list_tokens(engine, actor, page))

    @blueprint.answers("/tokens", NewTokenDocument, method="POST", body=(TokenBody,), status=201)
    def create_token(actor: Actor, values: dict[str, Any], body: dict[str, Any]) -> Response:
        """Creates a gateway token, which is shown this once."""
        return json_response(reader.ask(lambda engine: encode(make_token(engine, actor, body))), 201)

    @blueprint.answers(f"/tokens/<{ID}:id>", None, method="DELETE", status=204, errors=(404,))
    def delete_token(actor: Actor, values: dict[str, Any], id: str) -> Response:
        """Revokes a gateway token. Workers that know it stop within 30 seconds."""
        reader.ask(lambda engine: revoke_token(engine, actor, id))
        return Response(status=204)


def make_token(engine: Engine, actor: Actor, body: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a new token's document, with the token. `body` is as `TokenBody` loads it. Raises Refused."""
    user, groups = body.get("user", actor.id), tuple(body.get("groups", actor.groups))
    _check_rights(actor, user, groups, admin=body["admin"])
    ends = _end_of_used(engine, actor)
    token = tokens.create(engine, user, body["admin"], body["days"], groups, actor.id, ends)
    return {**queries.token_by_digest(engine, tokens.digest(token)), "token": token}


def revoke_token(engine: Engine, actor: Actor, id: str) -> None:
    """Raises NotFound."""
    queries.token(engine, actor, id)
    tokens.revoke(engine, id, by=actor.id)


def _check_rights(actor: Actor, user: str, groups: tuple[str, ...], admin: bool) -> None:
    """Raises Refused."""
    if actor.admin:
        return
    if user != actor.id:
        raise Refused(403, "a token for somebody else is for administrators to create", "admins_only")
    if admin or not set(groups) <= set(actor.groups):
        raise Refused(403, "a token may have your own groups and no admin rights", "admins_only")


def _end_of_used(engine: Engine, actor: Actor) -> tuple[datetime, ...]:
    """Returns when the token ends that the actor uses, if it does and a new one must not outlive it."""
    if actor.admin or not actor.token_id:
        return ()
    end = queries.token(engine, actor, actor.token_id)["expires_at"]
    return (datetime.fromisoformat(end),) if end else ()
