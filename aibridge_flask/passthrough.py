"""Passthrough requests: forwarded by a white list. Nothing is read or recorded but whose stored objects they
are about."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from msgspec.structs import replace

from . import headers
from .errors import BridgeError, UnknownRoute
from .hooks import PassthroughServed
from .model import Actor, ClientRequest, ClientResponse, UpstreamRequest
from .model_lists import allowed_in_list, filtered
from .outbound import Outbound
from .protocols import UpstreamResponse
from .relay import Cleanup, Relay, StreamEnd
from .upstream.keys import CredentialSource
from .waiting import watch

_NO_PINGS = 3600.0  # seconds
_DROPPED_FROM_STREAMS = headers.DROPPED_RESPONSE_HEADERS | {"x-accel-buffering"}


def forward(outbound: Outbound, request: ClientRequest, actor: Actor, id: str) -> ClientResponse:
    """Forwards a request, or answers it if the provider has a local answer for its path.

    Raises BridgeError before anything has been sent to the client.
    """
    local_body = outbound.provider.local_responses.get(request.path)
    allowed = allowed_in_list(outbound.rules, request, actor)
    if local_body is not None:
        response = _local_response(request, filtered(local_body, allowed) if allowed else local_body)
    else:
        if allowed:  # what is to be read may not be compressed
            request = replace(request, headers={**request.headers, "accept-encoding": "identity"})
        credentials = outbound.credentials_for(request.headers)
        body = request.read_body()
        outbound.ownership.check_passthrough(request, body, actor, credentials.first)
        upstream_request = outbound.passthrough_request(request, body, actor, credentials)
        upstream_request = replace(upstream_request, id=id, model="passthrough")
        try:
            response = _send(outbound, request, upstream_request, credentials, actor)
            response = _restricted(response, allowed) if allowed else response
        except BridgeError as error:
            error.is_reported = True
            _emit(outbound, request, actor, error.status, id)
            raise
    _emit(outbound, request, actor, response.status, id)
    return response


def _emit(outbound: Outbound, request: ClientRequest, actor: Actor, status: int, id: str) -> None:
    provider = outbound.provider
    route = provider.passthrough_route(request.path)
    outbound.hooks.emit(PassthroughServed(provider.name, route, request.method, actor.id, status, id))


def _send(
    outbound: Outbound,
    request: ClientRequest,
    upstream_request: UpstreamRequest,
    credentials: CredentialSource,
    actor: Actor,
) -> ClientResponse:
    cleanup = Cleanup()
    try:
        client = watch(request.client_socket)
        cleanup.add(client.close)
        response = outbound.send_passthrough(upstream_request, credentials, client)
        cleanup.add(response.close)
        pieces = outbound.ownership.read_along(request, response, _pieces(response), actor, credentials.first)
        return _relay(request, response, pieces, cleanup.close)
    except BaseException:
        cleanup.close()
        raise


def _local_response(request: ClientRequest, body: bytes) -> ClientResponse:
    if request.method not in ("GET", "HEAD"):
        raise UnknownRoute(request.method, request.path)
    fields = (("Content-Type", "application/json"), ("Content-Length", str(len(body))))
    return ClientResponse(200, fields, (piece for piece in (body,)))


def _restricted(response: ClientResponse, allowed: Sequence[str]) -> ClientResponse:
    """Returns a list of models without those that are not allowed."""
    data = filtered(b"".join(response.body), allowed)
    fields = [field for field in response.headers if field[0].lower() != "content-length"]
    size = ("Content-Length", str(len(data)))
    return ClientResponse(response.status, (*fields, size), (piece for piece in (data,)))


def _relay(
    request: ClientRequest, response: UpstreamResponse, pieces: Iterator[bytes], close: Callable[[], None]
) -> ClientResponse:
    stream_end = StreamEnd(on_early_end=_record_nothing, error_event=_no_error_event, close=close)
    streamed = headers.is_event_stream(response.headers)
    relay = Relay(pieces, stream_end, request.client_socket, streamed, request.http10)
    if not streamed:
        relay.prefetch()
    dropped = _DROPPED_FROM_STREAMS if streamed else headers.DROPPED_RESPONSE_HEADERS
    fields = headers.to_client(response.headers, dropped)
    if streamed:
        fields.append(("X-Accel-Buffering", "no"))
    return ClientResponse(response.status, tuple(fields), relay)


def _pieces(response: UpstreamResponse) -> Iterator[bytes]:
    return (piece for piece in response.iter_body(_NO_PINGS) if piece)


def _record_nothing(error: BridgeError) -> None:
    """Passthrough requests have no record."""


def _no_error_event(error: BridgeError) -> bytes:
    """The API's shape of an error event is not known on passthrough routes."""
    return b""
