"""One blueprint per provider: the Flask views on the framework-independent core."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, cast

from flask import Blueprint, Request, Response, request
from flask.blueprints import BlueprintSetupState
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException

from . import headers, passthrough
from .bridge import Bridge
from .errors import (
    BridgeError,
    GatewayError,
    InvalidHost,
    ProviderDisabled,
    TokenInUrl,
    UnknownRoute,
    UpgradeRequired,
)
from .headers import INTERCEPTION_HEADER, mask_tokens
from .hooks import RequestArrived, RequestRejected
from .identity import ActorLoader, require_actor
from .incoming import read_request
from .model import Actor, ClientRequest, ClientResponse, new_id
from .outbound import Outbound
from .protocols import Format
from .relay import Relay
from .request_body import BodyLimits
from .waiting import StalledClients

Serve = Callable[[Outbound, ClientRequest, Actor, str], ClientResponse]
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]
_log = logging.getLogger("aibridge")
_HOST_ARGUMENT = "_aibridge_host"
_BODILESS = (204, 304)
_UNSENT_RESPONSE = "aibridge.answer"  # in the environ
_NOT_FORWARDED = ("TRACE", "CONNECT")  # TRACE would reveal the central key, CONNECT asks for a tunnel


class BridgeBlueprint(Blueprint):
    """Serves on every host, also in an application that matches hosts."""

    def __init__(self, name: str) -> None:
        super().__init__(name, __name__)

    def add_url_rule(
        self, rule: str, endpoint: Any = None, view_func: Any = None, *args: Any, **options: Any
    ) -> None:
        def add(state: BlueprintSetupState) -> None:
            if state.app.url_map.host_matching:
                host = f"<string:{_HOST_ARGUMENT}>"
                state.add_url_rule(rule, endpoint, _without_host(view_func), *args, host=host, **options)
            else:
                state.add_url_rule(rule, endpoint, view_func, *args, **options)

        self.record(add)


def _without_host(view: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a view that does not take the host as an argument."""

    @wraps(view)
    def wrapper(**values: Any) -> Any:
        del values[_HOST_ARGUMENT]
        return view(**values)

    return wrapper


def add_catch_all(blueprint: Blueprint, path: str, view: Callable[..., Response]) -> None:
    """Routes all methods of a path to `view`, without redirects or automatic responses.

    The view decides by the raw target.
    """
    for websocket in (False, True):  # without a rule for it, Werkzeug answers 400 to an upgrade
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
    prefix: str,
    outbound: Outbound,
    bridge: Bridge,
    load_actor: ActorLoader,
    limits: BodyLimits,
    stalled: StalledClients,
) -> Blueprint:
    """Returns a blueprint with the routes of one provider, below `{prefix}/{name}`."""
    provider = outbound.provider
    blueprint = BridgeBlueprint(f"aibridge_{provider.name.replace('-', '_')}")
    root = f"{prefix}/{provider.name}"

    def view(rest: str = "") -> Response:
        flask_request = cast(Any, request)._get_current_object()  # noqa: SLF001 - the proxy costs time at each use
        client_request = read_request(flask_request, root, limits)
        id = new_id()
        _emit_arrived(outbound, client_request, id)
        try:
            if not headers.has_valid_host(flask_request.environ):
                raise InvalidHost
            serve = _route(outbound, bridge, client_request)
            actor = require_actor(load_actor, flask_request)
        except BridgeError as error:
            return _refuse(outbound, client_request, error, id)
        except Exception as error:  # of the host's loader, and for the host's handlers
            status = error.code if isinstance(error, HTTPException) and error.code else 500
            _emit_rejected(outbound, client_request, id, status, "actor_loader")
            raise
        try:
            response = serve(outbound, client_request, actor, id)
            if isinstance(response.body, Relay):
                stalled.watch(response.body)
            return flask_response(client_request, response, flask_request)
        except BridgeError as error:
            return _refuse(outbound, client_request, error, id)
        except Exception:  # noqa: BLE001 - the client gets an error in its API's shape
            _log.exception("request %s failed", id)
            return _refuse(outbound, client_request, GatewayError(), id)

    blueprint.teardown_request(_close_unsent)
    add_catch_all(blueprint, root, view)
    add_catch_all(blueprint, f"{root}/<path:rest>", view)
    return blueprint


def _emit_arrived(outbound: Outbound, request: ClientRequest, id: str) -> None:
    if outbound.hooks.has_listeners(RequestArrived):
        context = (request.headers.get(name, "") for name in ("traceparent", "tracestate"))
        outbound.hooks.emit(RequestArrived(id, *map(headers.without_token, context)))


def _emit_rejected(outbound: Outbound, request: ClientRequest, id: str, status: int, code: str) -> None:
    path = headers.mask_tokens(request.path)
    outbound.hooks.emit(RequestRejected(id, outbound.provider.name, request.method, path, status, code))


def _refuse(outbound: Outbound, request: ClientRequest, error: BridgeError, id: str) -> Response:
    if not error.is_reported:
        _emit_rejected(outbound, request, id, error.status, error.code)
    provider = outbound.provider
    is_bridged = request.path in provider.bridged_routes
    return error_response(error, provider.format_at(request.path), id, is_bridged)


def _route(outbound: Outbound, bridge: Bridge, request: ClientRequest) -> Serve:
    """Returns what serves the request. Raises BridgeError."""
    provider = outbound.provider
    if not provider.enabled:
        raise ProviderDisabled(provider.name)
    if headers.holds_token(request.query) or headers.holds_token(request.path):
        raise TokenInUrl
    if provider.is_bridged(request):
        return bridge.intercept
    if _is_websocket(request) and request.path in provider.bridged_routes:
        raise UpgradeRequired
    if request.method in _NOT_FORWARDED or not provider.passthrough_route(request.path):
        raise UnknownRoute(request.method, request.path)
    return passthrough.forward


def _is_websocket(request: ClientRequest) -> bool:
    return request.method == "GET" and request.headers.get("upgrade", "").lower() == "websocket"


class _RelayedResponse(Response):
    """An upstream's response with its own headers.

    A host's `after_request` may fail or return another response. No server closes this one then, so
    `_close_unsent` does.
    """

    default_mimetype = None

    def get_wsgi_headers(self, environ: Any) -> Headers:
        return self.headers

    def get_app_iter(self, environ: Any) -> Iterable[bytes]:
        environ.pop(_UNSENT_RESPONSE, None)
        return super().get_app_iter(environ)


def _close_unsent(_error: BaseException | None) -> None:
    response = request.environ.pop(_UNSENT_RESPONSE, None)
    if response is not None:
        response.close()


class _CheckedHeaders(Headers):
    """Fields that were validated before, by the parser of an upstream's response or by us."""

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        self._list = list(fields)


def flask_response(request: ClientRequest, response: ClientResponse, flask_request: Request) -> Response:
    """Returns a streamed Flask response.

    Servers neither iterate nor close the body of a response that has none, so such a body is consumed here.
    """
    body = response.body
    if request.method == "HEAD" or response.status in _BODILESS:
        for _ in body:
            pass
        body.close()
        body = ()
    fields = _CheckedHeaders(response.headers)
    relayed = _RelayedResponse(body, response.status, fields, direct_passthrough=True)
    flask_request.environ[_UNSENT_RESPONSE] = relayed
    return relayed


def error_response(error: BridgeError, wire_format: Format, id: str, is_bridged: bool) -> Response:
    """Returns an error of the bridge in the API's shape. It repeats no token that stood in a path or body."""
    body = mask_tokens(wire_format.error_body(error, id).decode())
    response = Response(body, error.status, mimetype="application/json")
    for name, value in error.headers:
        response.headers[name] = value
    if is_bridged:
        response.headers[INTERCEPTION_HEADER] = id
    return response
