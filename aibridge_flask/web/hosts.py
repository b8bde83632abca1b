"""Requests whose `Host` names no host."""

from __future__ import annotations

from flask import Response, request

from ..errors import InvalidHost
from ..formats.body import dumps
from ..headers import has_valid_host


def refuse_invalid_host() -> Response | None:
    """Returns the response to such a request, None to any other one; for `before_request`."""
    if has_valid_host(request.environ):
        return None
    error = InvalidHost()
    body = {"message": error.message, "detail": error.code, "validations": []}
    return Response(dumps(body), error.status, mimetype="application/json")
