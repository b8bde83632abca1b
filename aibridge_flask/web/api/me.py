"""`GET me`: the actor."""

from __future__ import annotations

from typing import Any

from flask import Response
from marshmallow import fields

from ...model import Actor
from ...reading.values import encode, initiator
from .blueprint import RecordsBlueprint
from .documents import Document, flag, names, text, texts
from .limits import LimitDocument, effective
from .reader import Reader, json_response


class ActorDocument(Document):
    id = text("The actor.")
    username = text("`username` of its metadata, else its id.")
    metadata = names("The actor's.")
    groups = texts("The actor's groups.")
    admin = flag("May see everything.")
    limits = fields.List(
        fields.Nested(LimitDocument), required=True, metadata={"description": "Limits in effect."}
    )


def add_me(blueprint: RecordsBlueprint, reader: Reader) -> None:
    @blueprint.answers("/me", ActorDocument)
    def me(actor: Actor, values: dict[str, Any]) -> Response:
        """Who asks."""
        whole = {
            **initiator(actor.id, actor.metadata),
            "metadata": dict(actor.metadata),
            "groups": actor.groups,
            "admin": actor.admin,
            "limits": reader.ask(lambda engine: effective(engine, actor)),
        }
        return json_response(encode(whole))
