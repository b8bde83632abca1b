"""`GET openapi.json`: the document of the records API, made when it is asked for."""

from __future__ import annotations

import threading
from typing import Any

from flask import Flask
from flask_smorest import Api

from ...formats.body import dumps
from ..index import version_name
from .blueprint import RecordsBlueprint
from .errors import ErrorDocument
from .reader import json_response

_OPENAPI = "3.1.0"


class _DocumentedApi(Api):
    """Documents a blueprint in an application of its own.

    In the host's it would take over its error pages, its command `openapi` and its documents.
    """

    ERROR_SCHEMA = ErrorDocument
    DEFAULT_ERROR_RESPONSE_NAME = None  # each path names its own errors

    def __init__(self, blueprint: RecordsBlueprint) -> None:
        options = {"title": "AI Bridge", "version": version_name(), "openapi_version": _OPENAPI}
        super().__init__(Flask("aibridge_documents"), spec_kwargs=options, config_prefix="AIBRIDGE_")
        self.register_blueprint(blueprint)

    def _register_error_handlers(self) -> None:
        """Nobody asks this application anything."""

    def to_json(self) -> bytes:
        return dumps(self.spec.to_dict())


def add_document(blueprint: RecordsBlueprint) -> None:
    lock = threading.Lock()
    made: list[bytes] = []

    @blueprint.answers("/openapi.json", {"type": "object"})
    def openapi(actor: Any, question: Any) -> Any:
        """This document."""
        with lock:
            if not made:
                made.append(_DocumentedApi(blueprint).to_json())
        return json_response(made[0])
