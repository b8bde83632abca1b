"""`GET audit`: who changed or looked at what."""

from __future__ import annotations

from typing import Any

from flask import Response
from marshmallow import fields

from ...model import Actor
from ...reading.audit import list_audit
from .blueprint import RecordsBlueprint
from .documents import Document, listing, text, time, truncated
from .questions import AfterQuestion, page_of
from .reader import Reader


class AuditDocument(Document):
    id = text("The row's.")
    at = time("When it was.")
    actor_id = text("Who did it.")
    action = text("What was done, such as `token.create`.")
    target = text("To what.")
    before = fields.Dict(required=True, metadata={"description": "What it was before."})
    after = fields.Dict(required=True, metadata={"description": "What it was afterwards."})
    truncated = truncated()


def add_audit(blueprint: RecordsBlueprint, reader: Reader) -> None:
    @blueprint.answers("/audit", listing("AuditListDocument", AuditDocument), AfterQuestion, admins=True)
    def audit(actor: Actor, values: dict[str, Any]) -> Response:
        """What was changed and looked at, newest first."""
        page = page_of(values)
        return reader.list(lambda engine: list_audit(engine, page))
