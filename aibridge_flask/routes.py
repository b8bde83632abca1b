"""One blueprint per provider: the thin Flask view on the core."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial, wraps
from io import BytesIO
from typing import Any, cast
from urllib.parse import quote, unquote_to_bytes, urlsplit

from flask import Blueprint, Request, Response, request
from flask.blueprints import BlueprintSetupState
from werkzeug.datastructures import Headers
from werkzeug.exceptions import RequestEntityTooLarge

from . import headers, passthrough
from .bridge import Bridge
from .errors import (
    BodyTooLarge,
    BridgeError,
    GatewayError,
    InvalidBody,
    ProviderDisabled,
    Unauthorized,
    UnknownRoute,
    UpgradeRequired,
)
from .headers import INTERCEPTION_HEADER
from .hooks import RequestArrived, RequestRejected
from .identity import ActorLoader
from .model import Actor, ClientRequest, ClientResponse, Format, new_id
from .outbound import Outbound

METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]
_log = logging.getLogger("aibridge")
_HOST = "_aibridge_host"
_BODILESS = (204, 304)
_HELD = "aibridge.answer"
_NEVER = ("TRACE", "CONNECT")  # one would show the central key, the other asks for a tunnel
_BROKE_OFF = "the request body is shorter than announced"


class BridgeBlueprint(Blueprint):
    """Serves on every host, also in an application that tells its pages apart by host."""

    def __init__(self, name: str) -> None:
        super().__init__(name, __name__)

    def add_url_rule(
        self, rule: str, endpoint: Any = None, view_func: Any = None, *rest: Any, **options: Any
    ) -> None:
        def add(state: BlueprintSetupState) -> None:
            if state.app.url_map.host_matching:
                host = f"<string:{_HOST}>"
                state.add_url_rule(rule, endpoint, _anywhere(view_func), *rest, host=host, **options)
            else:
                state.add_url_rule(rule, endpoint, view_func, *rest, **options)

        self.record(add)


def _anywhere(view: Callable[..., Any]) -> Callable[..., Any]:
    """The view, which need not know the host."""

    @wraps(view)
    def without_host(**values: Any) -> Any:
        del values[_HOST]
        return view(**values)

    return without_host


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
    blueprint = BridgeBlueprint(f"aibridge_{provider.name.replace('-', '_')}")
    below = f"{prefix}/{provider.name}"

    def view(rest: str = "") -> Response:
        incoming = cast(Any, request)._get_current_object()  # noqa: SLF001 - the proxy looks it up at each use
        call = read_request(incoming, below, limit)
        shape, id = provider.format_at(call.path), new_id()
        if outbound.hooks.has_listeners(RequestArrived):
            traced = (call.headers.get(name, "") for name in ("traceparent", "tracestate"))
            outbound.hooks.emit(RequestArrived(id, *traced))
        try:
            if not provider.enabled:
                raise ProviderDisabled(provider.name)
            return flask_response(
                call, _serve(outbound, bridge, partial(_actor, load, incoming), call, id), incoming
            )
        except BridgeError as error:
            told = error
        except Exception:  # noqa: BLE001 - whatever it was, the client gets its API's shape
            _log.exception("request %s failed", id)
            told = GatewayError()
        if not told.recorded:
            place = (id, provider.name, call.method, call.path)
            outbound.hooks.emit(RequestRejected(*place, told.status, told.code))
        return error_response(told, shape, id, call.path in provider.bridged_routes)

    blueprint.teardown_request(_abandon)
    add_catch_all(blueprint, below, view)
    add_catch_all(blueprint, f"{below}/<path:rest>", view)
    return blueprint


def _serve(
    outbound: Outbound, bridge: Bridge, load: Callable[[], Actor], call: ClientRequest, id: str
) -> ClientResponse:
    provider = outbound.provider
    if provider.is_bridged(call):
        return bridge.intercept(outbound, call, load(), id)
    if _is_websocket(call) and call.path in provider.bridged_routes:
        raise UpgradeRequired
    if call.method in _NEVER or not provider.passthrough_route(call.path):
        raise UnknownRoute(call.method, call.path)
    return passthrough.forward(outbound, call, load(), id)


def _actor(load: ActorLoader, incoming: Request) -> Actor:
    actor = load(incoming)
    if actor is None:
        raise Unauthorized
    return actor


def _is_websocket(call: ClientRequest) -> bool:
    return call.method == "GET" and call.headers.get("upgrade", "").lower() == "websocket"


def read_request(incoming: Request, below: str, limit: int) -> ClientRequest:
    """The request without Flask. Its path is the raw target's below `below`; one that cannot be
    told from the raw target is empty, which fits no route."""
    environ = incoming.environ
    path, query = _raw_target(environ)
    script = environ.get("SCRIPT_NAME", "").encode("latin-1")
    if script and unquote_to_bytes(path) != environ["PATH_INFO"].encode("latin-1"):
        path = path.removeprefix(quote(script))  # else a proxy has cut it off
    return ClientRequest(
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
        return path, query.partition("#")[0]
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
        body = _announced(incoming, announced) if announced else incoming.get_data(cache=False)
    except RequestEntityTooLarge:
        raise BodyTooLarge(limit) from None
    except Exception:  # noqa: BLE001 - servers have errors of their own for what they cannot read
        raise InvalidBody(_BROKE_OFF) from None
    if len(body) > limit:
        raise BodyTooLarge(limit)
    if len(body) < announced:
        raise InvalidBody(_BROKE_OFF)
    return body


def _announced(incoming: Request, size: int) -> bytes:
    """A body whose size is known, read without Werkzeug's streams, unless a host has begun with these."""
    if "stream" in vars(incoming):
        return incoming.get_data(cache=False)
    source, incoming.stream = incoming.environ["wsgi.input"], BytesIO()
    parts = [source.read(size)]
    size -= len(parts[0])
    while size and parts[-1]:
        parts.append(source.read(size))
        size -= len(parts[-1])
    return parts[0] if len(parts) == 1 else b"".join(parts)


class _RelayedResponse(Response):
    """An upstream's answer, whose headers are its own. What a host does after the view may fail or
    put another answer in its place: then no server ever closes this one, and `_abandon` does."""

    default_mimetype = None

    def get_wsgi_headers(self, environ: Any) -> Headers:
        return self.headers

    def get_app_iter(self, environ: Any) -> Iterable[bytes]:
        environ.pop(_HELD, None)
        return super().get_app_iter(environ)


def _abandon(_error: BaseException | None) -> None:
    held = request.environ.pop(_HELD, None)
    if held is not None:
        held.close()


class _CheckedHeaders(Headers):
    """Fields that the parser of an upstream's answer, or we, have looked at already."""

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        self._list = list(fields)


def flask_response(call: ClientRequest, reply: ClientResponse, incoming: Request) -> Response:
    """The answer, streamed. Servers call nothing on the body of an answer that has none, so
    such a one is ended here."""
    body = reply.body
    if call.method == "HEAD" or reply.status in _BODILESS:
        for _ in body:
            pass
        body.close()
        body = ()
    response = _RelayedResponse(body, reply.status, _CheckedHeaders(reply.headers), direct_passthrough=True)
    incoming.environ[_HELD] = response
    return response


def error_response(error: BridgeError, shape: Format, id: str, bridged: bool) -> Response:
    """An error of the bridge's own, in the API's shape."""
    response = Response(shape.error_body(error, id), error.status, mimetype="application/json")
    for name, value in error.headers:
        response.headers[name] = value
    if bridged:
        response.headers[INTERCEPTION_HEADER] = id
    return response
