"""One blueprint per provider: the thin Flask view on the core."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

from flask import Blueprint, Request, Response, g, request
from werkzeug.exceptions import RequestEntityTooLarge

from . import headers, passthrough
from .bridge import Bridge
from .errors import (
    BadBody,
    BodyTooLarge,
    BridgeError,
    GatewayError,
    ProviderDisabled,
    Unauthorized,
    UnknownRoute,
    UpgradeRequired,
)
from .headers import INTERCEPTION_HEADER
from .identity import ActorLoader
from .model import Actor, Call, Format, Reply, new_id
from .outbound import Outbound

METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]
_log = logging.getLogger("aibridge")
_BODILESS = (204, 304)
_NEVER = ("TRACE", "CONNECT")  # one would show the central key, the other asks for a tunnel
_BROKE_OFF = "the request body is shorter than announced"


def add_catch_all(blueprint: Blueprint, path: str, view: Callable[..., Response]) -> None:
    """All of a path's methods go to `view`, and no redirect or automatic answer stands in the
    way: what is served is decided on the raw target."""
    for websocket in (False, True):  # Werkzeug answers 400 to an upgrade that no rule expects
        blueprint.add_url_rule(
            path,
            endpoint=f"all_{len(blueprint.deferred_functions)}",
            view_func=view,
            methods=["GET"] if websocket else METHODS,
            strict_slashes=False,
            merge_slashes=False,
            provide_automatic_options=False,
            websocket=websocket,
        )


def provider_blueprint(
    prefix: str, outbound: Outbound, bridge: Bridge, load: ActorLoader, limit: int
) -> Blueprint:
    """The routes of one provider, below `{prefix}/{name}`."""
    provider = outbound.provider
    blueprint = Blueprint(f"aibridge_{provider.name.replace('-', '_')}", __name__)

    def view(rest: str = "") -> Response:
        call = read_call(request, f"{prefix}/{provider.name}", limit)
        shape, id = provider.format_at(call.path), new_id()
        try:
            if not provider.enabled:
                raise ProviderDisabled(provider.name)
            return respond(call, _serve(outbound, bridge, load, call, id))
        except BridgeError as error:
            return refuse(error, shape, id, call.path in provider.bridged_routes)
        except Exception:  # noqa: BLE001 - whatever it was, the client gets its API's shape
            _log.exception("request %s failed", id)
            return refuse(GatewayError(), shape, id, call.path in provider.bridged_routes)

    @blueprint.teardown_request
    def let_go(error: BaseException | None) -> None:
        """Where a host's `after_request` fails, nobody closes the answer in whose place its error goes."""
        body = g.pop("aibridge_answer", None)
        if error is not None and body is not None:
            body.close()

    add_catch_all(blueprint, f"{prefix}/{provider.name}", view)
    add_catch_all(blueprint, f"{prefix}/{provider.name}/<path:rest>", view)
    return blueprint


def _serve(outbound: Outbound, bridge: Bridge, load: ActorLoader, call: Call, id: str) -> Reply:
    provider = outbound.provider
    if provider.is_bridged(call):
        return bridge.intercept(outbound, call, _actor(load), id)
    if _is_websocket(call) and call.path in provider.bridged_routes:
        raise UpgradeRequired
    if call.method in _NEVER or not provider.passes(call.path):
        raise UnknownRoute(call.method, call.path)
    return passthrough.forward(outbound, call, _actor(load))


def _actor(load: ActorLoader) -> Actor:
    actor = load(request)
    if actor is None:
        raise Unauthorized
    return actor


def _is_websocket(call: Call) -> bool:
    return call.method == "GET" and call.headers.get("upgrade", "").lower() == "websocket"


def read_call(incoming: Request, below: str, limit: int) -> Call:
    """The request without Flask. Its path is the raw target's below `below`; one that cannot be
    told from the raw target is empty, which fits no route."""
    environ = incoming.environ
    path, query = _raw_target(environ)
    path = path.removeprefix(quote(environ.get("SCRIPT_NAME", "")))
    return Call(
        method=incoming.method,
        path=path.removeprefix(below) if path.startswith(below) else "",
        query=query,
        headers=headers.from_environ(environ),
        read_body=lambda: _read_body(incoming, limit),
        client_socket=environ.get("gunicorn.socket"),
        http10=environ.get("SERVER_PROTOCOL") == "HTTP/1.0",
    )


def _raw_target(environ: dict[str, Any]) -> tuple[str, str]:
    """Path and query as they stood on the wire. Servers that give no raw target have decoded
    the path: then what could have been encoded or doubled is no path at all."""
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if raw:
        target = raw if raw.startswith("/") else urlsplit(raw)._replace(scheme="", netloc="").geturl()
        path, _, query = target.partition("?")
        return path, query
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    plain = "%" not in path and "//" not in path
    return (quote(path.encode("latin-1")) if plain else ""), environ.get("QUERY_STRING", "")


def _read_body(incoming: Request, limit: int) -> bytes:
    """Counts while it reads. Raises BodyTooLarge, and BadBody where the body is shorter than
    announced. Werkzeug ends quietly at its limit, so it is given one byte more than ours."""
    announced = incoming.content_length or 0
    if announced > limit:
        raise BodyTooLarge(limit)
    incoming.max_content_length = limit + 1
    try:
        body = incoming.get_data(cache=False)
    except RequestEntityTooLarge:
        raise BodyTooLarge(limit) from None
    except Exception:  # noqa: BLE001 - servers have errors of their own for what they cannot read
        raise BadBody(_BROKE_OFF) from None
    if len(body) > limit:
        raise BodyTooLarge(limit)
    if len(body) < announced:
        raise BadBody(_BROKE_OFF)
    return body


def respond(call: Call, reply: Reply) -> Response:
    """The answer, streamed. Servers call nothing on the body of an answer that has none, so
    such a one is ended here."""
    body = reply.body
    if call.method == "HEAD" or reply.status in _BODILESS:
        for _ in body:
            pass
        body.close()
        body = ()
    else:
        g.aibridge_answer = body
    response = Response(body, status=reply.status, direct_passthrough=True)
    del response.headers["Content-Type"]
    for name, value in reply.headers:
        response.headers.add(name, value)
    return response


def refuse(error: BridgeError, shape: Format, id: str, bridged: bool) -> Response:
    """An error of the bridge's own, in the API's shape."""
    response = Response(shape.error_body(error, id), error.status, mimetype="application/json")
    for name, value in error.headers:
        response.headers[name] = value
    if bridged:
        response.headers[INTERCEPTION_HEADER] = id
    return response
