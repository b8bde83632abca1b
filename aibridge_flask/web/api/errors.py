"""Errors of the records API: `{message, detail, validations[{field, detail}]}`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flask import Response, current_app
from marshmallow import fields
from sqlalchemy.exc import SQLAlchemyError

from ...errors import BridgeError
from ...formats.body import dumps
from ...headers import mask_tokens
from ...reading.errors import BadQuestion, NotFound
from .documents import Document, text


class ValidationDocument(Document):
    field = text("The parameter or member.")
    detail = text("What is expected.")


class ErrorDocument(Document):
    message = text("What is wrong.")
    detail = text("More about it, or what to do.")
    validations = fields.List(fields.Nested(ValidationDocument), required=True)


class Refused(Exception):
    """The request is refused with a status."""

    def __init__(self, status: int, message: str, detail: str) -> None:
        super().__init__(message)
        self.status, self.message, self.detail = status, message, detail


class InvalidParameters(Exception):
    """marshmallow has found these errors, by field."""

    def __init__(self, messages: Any) -> None:
        super().__init__("invalid parameters")
        self.messages = messages


class TooSlow(Exception):
    """A question was ended after the seconds that it may take."""


ANSWERED = (BridgeError, Refused, InvalidParameters, BadQuestion, NotFound, TooSlow, SQLAlchemyError, OSError)
"""What `response_to` knows."""


def response_to(error: Exception) -> Response:
    """Returns the response to an error of `ANSWERED`."""
    match error:
        case BridgeError():
            response = error_response(error.status, error.message, error.code)
        case Refused():
            response = error_response(error.status, error.message, error.detail)
        case InvalidParameters():
            response = _invalid(dict(_by_field(error.messages)))
        case BadQuestion():
            response = _invalid({error.field: error.detail})
        case NotFound():
            response = error_response(404, str(error), "or it is not yours")
        case TooSlow():
            response = error_response(503, "the question takes too long", "narrow the period")
        case _:
            # no traceback: it would show the statement and its values
            current_app.logger.error("the records cannot be read: %s", type(error).__name__)
            response = error_response(503, "the records cannot be read", "the database is away")
    return response


def error_response(status: int, message: str, detail: str, validations: Any = ()) -> Response:
    body = {"message": message, "detail": detail, "validations": list(validations)}
    return Response(mask_tokens(dumps(body).decode()), status, mimetype="application/json")


def _invalid(details: Mapping[str, str]) -> Response:
    validations = [{"field": field, "detail": detail} for field, detail in details.items()]
    return error_response(400, "the query is not valid", "see validations", validations)


def _by_field(messages: Any, field: str = "") -> Iterator[tuple[str, str]]:
    """Yields the messages of each field; those of inner ones under `outer.inner`."""
    if isinstance(messages, Mapping):
        for key, inner in messages.items():
            yield from _by_field(inner, f"{field}.{key}" if field else str(key))
    else:
        yield field, " ".join(map(str, messages))
