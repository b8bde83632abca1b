"""`GET openapi.json`: the OpenAPI document of the records API, made when it is first asked for.

flask-smorest makes it, in an application of its own: in the host's it would take over error pages, the
command `openapi` and documents.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from flask import Flask, Response

from ...formats.body import dumps
from ...model import Actor
from ...version import VERSION
from .blueprint import ID, Operation, RecordsBlueprint, View
from .errors import ErrorDocument
from .reader import json_response

_OPENAPI = "3.1.0"
_PREFIX = "AIBRIDGE_"
_TEXT = {"type": "string"}
_MEANINGS = {
    400: "A parameter is not valid: `validations` names it.",
    401: "The actor is not known.",
    403: "The actor may not do this.",
    404: "There is no such thing, or it is not the actor's.",
    409: "It cannot be changed.",
    503: "The database is away, or the question takes too long.",
}
_COMMON_ERRORS = (400, 401, 403, 503)


def add_document(blueprint: RecordsBlueprint) -> None:
    lock = threading.Lock()
    made: list[bytes] = []

    @blueprint.answers("/openapi.json", {"type": "object"})
    def openapi(actor: Actor, values: Mapping[str, Any]) -> Response:
        """This document."""
        with lock:
            if not made:
                made.append(dumps(_document(blueprint)))
        return json_response(made[0])


def _document(blueprint: RecordsBlueprint) -> dict[str, Any]:
    from flask_smorest import Api, Blueprint  # needed once, and seldom

    class DocumentedApi(Api):
        ERROR_SCHEMA = ErrorDocument
        DEFAULT_ERROR_RESPONSE_NAME = None  # each path names its own errors

        def _register_error_handlers(self) -> None:
            """Nobody asks this application anything."""

    app = Flask("aibridge_documents")
    options = {"title": "AI Bridge", "version": VERSION, "openapi_version": _OPENAPI}
    api = DocumentedApi(app, spec_kwargs=options, config_prefix=_PREFIX)
    documented = Blueprint("records", __name__)
    for operation in blueprint.operations:
        rule = f"{blueprint.prefix}{operation.rule}".replace(f"<{ID}:", "<")
        tags = [operation.rule.split("/")[1]]
        view = _documented(documented, operation)
        documented.add_url_rule(rule, None, view, tags=tags, methods=[operation.method])
    api.register_blueprint(documented)
    document: dict[str, Any] = api.spec.to_dict()
    return document


def _documented(blueprint: Any, operation: Operation) -> View:
    """Returns the view as flask-smorest documents it."""
    view: Any = operation.view
    for schema in operation.body:
        view = blueprint.arguments(schema, error_status_code=400)(view)
    view = blueprint.arguments(operation.question, location="query", error_status_code=400)(view)
    first, *further = operation.media_types
    for media_type in further:
        view = blueprint.alt_response(operation.status, schema=_TEXT, content_type=media_type)(view)
    view = blueprint.response(operation.status, operation.document, content_type=first)(view)
    for status in sorted({*_COMMON_ERRORS, *operation.errors}):
        view = blueprint.alt_response(status, schema=ErrorDocument, description=_MEANINGS[status])(view)
    documented: View = view
    return documented
