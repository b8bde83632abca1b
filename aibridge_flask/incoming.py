"""A client's request, as the core knows it: read from Flask's and from the WSGI environ."""

from __future__ import annotations

from io import BytesIO
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlsplit

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge

from . import headers, request_body
from .errors import BodyTooLarge
from .model import ClientRequest
from .request_body import BodyLimits


def read_request(flask_request: Request, root: str, limits: BodyLimits) -> ClientRequest:
    """Returns the request without Flask. Its path is the raw target's path below `root`.

    The path is empty, and matches no route, if it cannot be determined from the raw target.
    """
    environ = flask_request.environ
    path, query = _raw_target(environ)
    script = environ.get("SCRIPT_NAME", "").encode("latin-1")
    if script and unquote_to_bytes(path) != environ["PATH_INFO"].encode("latin-1"):
        path = path.removeprefix(quote(script))  # else a proxy has removed it
    return ClientRequest(
        method=flask_request.method,
        path=path.removeprefix(root) if path.startswith(root) else "",
        query=query,
        headers=headers.from_environ(environ),
        read_body=lambda: _read_body(flask_request, limits),
        client_socket=environ.get("gunicorn.socket"),
        http10=environ.get("SERVER_PROTOCOL") == "HTTP/1.0",
    )


def _raw_target(environ: dict[str, Any]) -> tuple[str, str]:
    """Returns path and query as they were on the wire.

    Servers without a raw target have decoded the path. A path that may have been encoded, or had doubled
    slashes, is then rejected.
    """
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if raw:
        target = raw if raw.startswith("/") else urlsplit(raw)._replace(scheme="", netloc="").geturl()
        path, _, query = target.partition("?")
        return path, query.partition("#")[0]
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    is_plain = "%" not in path and "//" not in path
    return (quote(path.encode("latin-1")) if is_plain else ""), environ.get("QUERY_STRING", "")


def _read_body(flask_request: Request, limits: BodyLimits) -> bytes:
    """Reads without Werkzeug's streams, unless the host has already used them.

    Werkzeug stops silently at its limit, so its limit is one byte above ours. Raises what `read` raises.
    """
    environ, announced = flask_request.environ, flask_request.content_length or 0
    flask_request.max_content_length = limits.max_bytes + 1
    if "stream" in vars(flask_request):
        source: Any = BytesIO(_read_again(flask_request, limits))
    elif announced or environ.get("wsgi.input_terminated"):
        source, flask_request.stream = environ["wsgi.input"], BytesIO()
    else:
        return b""
    return request_body.read(source, announced, environ.get("gunicorn.socket"), limits)


def _read_again(flask_request: Request, limits: BodyLimits) -> bytes:
    """Returns a body that the host may have read before."""
    try:
        return flask_request.get_data(cache=False)
    except RequestEntityTooLarge:
        raise BodyTooLarge(limits.max_bytes) from None
