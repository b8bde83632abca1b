"""The records API."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, current_app, request
from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate
from sqlalchemy.exc import SQLAlchemyError

from ..errors import BridgeError
from ..formats.body import dumps
from ..identity import ActorLoader, require_actor
from ..model import Actor
from ..reading import interceptions as interception_queries
from ..reading import search
from ..records.deadlines import DEADLINES
from ..records.recorder import Recorder
from ..waiting import READERS

_QUERY_SECONDS = 5.0
_READ_SECONDS = 12.0  # with the wait for a thread and for the first connection


class _PageSchema(Schema):
    class Meta:
        unknown = EXCLUDE

    q = fields.String(load_default="")
    limit = fields.Integer(load_default=100, validate=validate.Range(1, 1000))
    offset = fields.Integer(load_default=0, validate=validate.Range(0, 2**31))
    after_id = fields.String(load_default="")


def add_records(blueprint: Blueprint, prefix: str, load_actor: ActorLoader, recorder: Recorder) -> None:
    def interceptions() -> Response:
        """Interceptions with all their parts, newest first."""
        try:
            actor = require_actor(load_actor, request)
        except BridgeError as error:
            return _error_response(error.status, error.message, error.code)
        return _page_of(recorder, actor)

    blueprint.add_url_rule(f"{prefix}/interceptions", view_func=interceptions)


def _page_of(recorder: Recorder, actor: Actor) -> Response:
    try:
        return Response(_read(recorder, actor), mimetype="application/json")
    except BridgeError as error:
        return _error_response(error.status, error.message, error.code)
    except ValidationError as error:
        return _invalid(error.messages_dict)
    except search.BadSearch as error:
        return _invalid({"q": [str(error)]})
    except LookupError:
        return _invalid({"after_id": ["there is no such interception"]})
    except (SQLAlchemyError, OSError) as error:
        # no traceback: it would show the statement and its values
        current_app.logger.error("the records cannot be read: %s", type(error).__name__)  # noqa: TRY400
        return _error_response(503, "the records cannot be read", "the database is away")


def _read(recorder: Recorder, actor: Actor) -> bytes:
    values = _PageSchema().load(request.args)
    conditions = search.parse(values.pop("q"))
    page = interception_queries.Page(**values)
    recorder.start()

    def query() -> bytes:
        recorder.wait_until_applied()
        with DEADLINES.limit(_QUERY_SECONDS):
            found = interception_queries.interceptions(recorder.engine, actor, conditions, page)
        return dumps(found)

    return READERS.run(query, _READ_SECONDS)


def _invalid(messages: dict[str, Any]) -> Response:
    validations = [{"field": key, "detail": " ".join(texts)} for key, texts in messages.items()]
    return _error_response(400, "the query is not valid", "see validations", validations)


def _error_response(status: int, message: str, detail: str, validations: Any = ()) -> Response:
    body = {"message": message, "detail": detail, "validations": list(validations)}
    return Response(dumps(body), status, mimetype="application/json")
