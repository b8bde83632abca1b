"""The blueprint of the records API: each path with its actor, its parameters and its errors.

What a path is documented with stands in its `Operation`, of which `openapi.py` makes the document when it is
asked for: to make it takes longer than to start the application.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, NoReturn

from flask import Request, Response, request
from marshmallow import Schema
from webargs.flaskparser import FlaskParser
from werkzeug.routing import PathConverter

from ...errors import BridgeError
from ...identity import ActorLoader, require_actor
from ...model import Actor
from ...routes import BridgeBlueprint
from .changes import require_deliberate
from .errors import ANSWERED, InvalidParameters, Refused, response_to
from .questions import NoQuestion

View = Callable[..., Response]
"""Called with the actor, the parameters, the body's members if there is one, and the path's variables."""

JSON = "application/json"
ID = "aibridge_id"
"""The converter of ids in rules."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A path and method, with what it takes and what it answers.

    `document` is a schema, or a part of an OpenAPI document; None: nothing. `body` holds one schema or none.
    `errors` are statuses beside those that each path may answer with. `admins`: it answers nobody else.
    """

    rule: str
    method: str
    view: View
    document: Any
    question: type[Schema]
    body: tuple[type[Schema], ...] = ()
    status: int = 200
    media_types: Sequence[str] = (JSON,)
    errors: Sequence[int] = ()
    admins: bool = False


class _Parser(FlaskParser):
    def handle_error(self, error: Any, *_: Any, **__: Any) -> NoReturn:
        inner = error.messages if isinstance(error.messages, dict) else {}
        raise InvalidParameters(next(iter(inner.values()), error.messages)) from None

    def _handle_invalid_json_error(self, error: Any, *_: Any, **__: Any) -> NoReturn:
        raise InvalidParameters({"body": ["it is not JSON"]}) from None


_PARSER = _Parser()


class _IdConverter(PathConverter):
    """An id as a client has chosen it: it may hold slashes, percent-encoded, also as its first character."""

    regex, part_isolating = r"[\s\S]+?", False


class RecordsBlueprint(BridgeBlueprint):
    """Serves its operations on every host."""

    def __init__(self, prefix: str, load_actor: ActorLoader) -> None:
        super().__init__("aibridge_records")
        self.prefix, self._load_actor = prefix, load_actor
        self.operations: list[Operation] = []
        self.record(lambda state: state.app.url_map.converters.update({ID: _IdConverter}))

    def answers(
        self,
        rule: str,
        document: Any,
        question: type[Schema] = NoQuestion,
        *,
        method: str = "GET",
        **options: Any,
    ) -> Callable[[View], View]:
        """Decorator: a view answers at `rule`. `options` are further members of an `Operation`."""

        def add(view: View) -> View:
            operation = Operation(rule, method, view, document, question, **options)
            self.operations.append(operation)
            self.add_url_rule(
                f"{self.prefix}{rule}",
                f"{method}_{view.__name__}",
                self._serve(operation),
                methods=[method],
                merge_slashes=False,
            )
            return view

        return add

    def _serve(self, operation: Operation) -> View:
        @wraps(operation.view)
        def serve(**path: Any) -> Response:
            try:
                actor = require_actor(self._load_actor, request)
            except BridgeError as error:  # others are for the host's handlers
                return response_to(error)
            try:
                return _answer(operation, actor, path)
            except ANSWERED as error:
                return response_to(error)

        return serve


def _answer(operation: Operation, actor: Actor, path: dict[str, Any]) -> Response:
    if operation.method != "GET":
        require_deliberate(request)
    if operation.admins and not actor.admin:
        raise Refused(403, "only administrators may ask this", "admins_only")
    values = _parse(operation.question, "query")
    bodies = [_parse(schema, "json") for schema in operation.body]
    return operation.view(actor, values, *bodies, **path)


def _parse(schema: type[Schema], location: str) -> Any:
    """Raises InvalidParameters."""
    found: Request = request
    return _PARSER.parse(schema, found, location=location)
