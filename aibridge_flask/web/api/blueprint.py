"""The blueprint of the records API: each path with its actor, its parameters, its errors and its document."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, NoReturn

from flask import Response, request
from flask_smorest import Blueprint
from marshmallow import Schema
from webargs.flaskparser import FlaskParser
from werkzeug.routing import PathConverter

from ...errors import BridgeError
from ...identity import ActorLoader, require_actor
from ...model import Actor
from ...routes import BridgeBlueprint
from .changes import require_deliberate
from .errors import ANSWERED, ErrorDocument, InvalidParameters, Refused, response_to
from .questions import NoQuestion

View = Callable[..., Response]
"""Called with the actor, the parameters, the body's members if there is one, and the path's variables."""

JSON = "application/json"
ID = "aibridge_id"
"""The converter of ids in rules."""

_MEANINGS = {
    400: "A parameter is not valid: `validations` names it.",
    401: "The actor is not known.",
    403: "The actor may not do this.",
    404: "There is no such thing, or it is not the actor's.",
    409: "It cannot be changed.",
    503: "The database is away, or the question takes too long.",
}
_COMMON_ERRORS = (400, 401, 403, 503)


class _Parser(FlaskParser):
    DEFAULT_VALIDATION_STATUS = 400

    def handle_error(self, error: Any, *_: Any, **__: Any) -> NoReturn:
        inner = error.messages if isinstance(error.messages, dict) else {}
        raise InvalidParameters(next(iter(inner.values()), error.messages)) from None

    def _handle_invalid_json_error(self, error: Any, *_: Any, **__: Any) -> NoReturn:
        raise InvalidParameters({"body": ["it is not JSON"]}) from None


class _IdConverter(PathConverter):
    """An id as a client has chosen it: it may hold slashes, percent-encoded, also as its first character."""

    regex, part_isolating = ".+?", False


class RecordsBlueprint(Blueprint, BridgeBlueprint):
    """Documents its routes, and serves them on every host."""

    ARGUMENTS_PARSER = _Parser()

    def __init__(self, prefix: str, load_actor: ActorLoader) -> None:
        super().__init__("aibridge_records")
        self._prefix, self._load_actor = prefix, load_actor
        self.record(lambda state: state.app.url_map.converters.update({ID: _IdConverter}))

    def answers(
        self,
        rule: str,
        document: Any,
        question: type[Schema] = NoQuestion,
        *,
        method: str = "GET",
        body: Sequence[type[Schema]] = (),
        status: int = 200,
        media_types: Sequence[str] = (JSON,),
        errors: Sequence[int] = (),
        admins: bool = False,
    ) -> Callable[[View], View]:
        """Decorator: a view answers at `rule` with a `document`. `admins`: it answers nobody else."""

        def add(view: View) -> View:
            documented: Any = view
            for schema in body:
                documented = self.arguments(schema)(documented)
            documented = self.arguments(question, location="query")(documented)
            for media_type in media_types[1:]:
                documented = self.alt_response(status, schema=_TEXT, content_type=media_type)(documented)
            documented = self.response(status, document, content_type=media_types[0])(documented)
            for code in sorted({*_COMMON_ERRORS, *errors}):
                documented = self.alt_response(code, schema=ErrorDocument, description=_MEANINGS[code])(
                    documented
                )
            options: Any = {"tags": [rule.split("/")[1]], "methods": [method], "merge_slashes": False}
            self.add_url_rule(f"{self._prefix}{rule}", None, self._guarded(documented, admins), **options)
            return view

        return add

    def _guarded(self, view: Any, admins: bool) -> View:
        @wraps(view)
        def guarded(**path: Any) -> Response:
            try:
                actor = require_actor(self._load_actor, request)
            except BridgeError as error:  # others are for the host's handlers
                return response_to(error)
            try:
                return _answer(view, actor, admins, path)
            except ANSWERED as error:
                return response_to(error)

        return guarded


def _answer(view: Any, actor: Actor, admins: bool, path: dict[str, Any]) -> Response:
    if request.method not in ("GET", "HEAD"):
        require_deliberate(request)
    if admins and not actor.admin:
        raise Refused(403, "only administrators may ask this", "admins_only")
    response: Response = view(actor, **path)
    return response


_TEXT = {"type": "string"}
