"""Errors as upstreams write them: in the API's shape, or in that of whatever stands before the model."""

from __future__ import annotations

from typing import Any

from ..model import Failure
from . import body

_MAX_MESSAGE_LENGTH = 1000
_MAX_DEPTH = 5
_MESSAGE_NAMES = ("message", "msg", "error_description", "error", "detail", "errors", "reason")
_ERROR_TYPES = (
    (("overloaded",), "overloaded"),
    (("rate_limit", "quota"), "rate_limited"),
    (("timeout",), "timeout"),
    (("authentication", "permission", "invalid_api_key"), "unauthorized"),
    (("invalid", "not_found", "too_large", "bad_request", "context_length"), "bad_request"),
    (("server_error", "api_error", "internal"), "server_error"),
)


def failure_in(value: Any, event_name: bytes = b"") -> Failure:
    """Returns the failure that an event or a body with status 200 tells of; a false one if it tells of none.

    >>> failure_in({"error": "the model is loading"}).message, bool(failure_in({"error": None}))
    ('the model is loading', False)
    """
    value = _first(value)
    marks = (body.get_string(value, "type"), body.get_string(value, "object"), event_name.decode("latin-1"))
    is_error = "error" in marks or (isinstance(value, body.OBJECT) and bool(value.get("error")))
    return failure_from(value) if is_error else Failure()


def failure_from(error: Any) -> Failure:
    """Returns the failure by the API's words for it, else by the status that it names as its code."""
    type, code, message = words_of(error)
    failure = failure_by_words(f"{type} {code}".strip(), message)
    is_status = failure.type == "unknown" and len(code) == 3 and code.isdecimal()
    return Failure(error_type_of(int(code)) or failure.type, message) if is_status else failure


def failure_by_words(words: str, message: str) -> Failure:
    """Returns the failure of which the API says `words`, its type and code.

    >>> failure_by_words("overloaded_error", "Overloaded").type, failure_by_words("server_error", "").type
    ('overloaded', 'server_error')
    """
    for parts, type in _ERROR_TYPES:
        if any(part in words for part in parts):
            return Failure(type, message)
    return Failure("unknown", message)


def parse_error(data: bytes) -> tuple[str, str, str]:
    """Returns type, code and message of an error's JSON; a missing one is empty.

    >>> parse_error(b'{"error":{"type":"overloaded_error","message":"Overloaded"}}')
    ('overloaded_error', '', 'Overloaded')
    """
    return words_of(body.loads(data))


def words_of(value: Any) -> tuple[str, str, str]:
    """Returns type, code and message of an error, whatever its shape.

    >>> words_of([{"error": {"code": 400, "message": "no"}}]), words_of({"detail": [{"msg": "required"}]})
    (('', '400', 'no'), ('', '', 'required'))
    """
    value = _first(value)
    inner = _first(value.get("error")) if isinstance(value, body.OBJECT) else None
    error = inner if isinstance(inner, body.OBJECT) else value
    type, code = body.get_string(error, "type"), error.get("code") if isinstance(error, body.OBJECT) else None
    code = str(code) if isinstance(code, str | int) and not isinstance(code, bool) else ""
    message = _message(error) or _message(value)
    return "" if type == "error" else type, code, message[:_MAX_MESSAGE_LENGTH]


def _first(value: Any) -> Any:
    """Some upstreams put an error into an array."""
    return value[0] if isinstance(value, list) and value else value


def _message(value: Any, depth: int = 0) -> str:
    if isinstance(value, str) or depth > _MAX_DEPTH:
        return value if isinstance(value, str) else ""
    if isinstance(value, list):
        return "; ".join(filter(None, (_message(each, depth + 1) for each in value[:_MAX_DEPTH])))
    if not isinstance(value, body.OBJECT):
        return ""
    found = next(filter(None, (_message(value.get(name), depth + 1) for name in _MESSAGE_NAMES)), "")
    if "msg" in value and body.get_array(value, "loc"):  # what FastAPI says of a member
        return f"{'.'.join(map(str, value['loc'][:_MAX_DEPTH]))}: {found}"
    return found or (body.dumps(dict(value)).decode() if depth > 0 and value else "")


def error_type_of(status: int) -> str:
    """Returns the record's `error_type` for an upstream's status; "" for success.

    >>> [error_type_of(status) for status in (200, 400, 401, 429, 500, 529, 504)]
    ['', 'bad_request', 'unauthorized', 'rate_limited', 'server_error', 'overloaded', 'timeout']
    """
    if 200 <= status < 300:
        return ""
    type_by_status = {
        401: "unauthorized",
        403: "unauthorized",
        407: "unauthorized",
        408: "timeout",
        429: "rate_limited",
        503: "overloaded",
        504: "timeout",
        529: "overloaded",
    }
    if status in type_by_status:
        return type_by_status[status]
    return "bad_request" if 400 <= status < 500 else "server_error" if status >= 500 else "unknown"
