"""The white-listed proxy: the same way out, nothing read, nothing recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec.structs import replace

from . import headers
from .errors import BridgeError, UnknownRoute
from .hooks import PassthroughServed
from .model import Actor, ClientRequest, ClientResponse, UpstreamRequest, UpstreamResponse
from .outbound import Outbound
from .relay import Cleanup, Relay, StreamEnd
from .upstream.keys import CredentialSource
from .waiting import watch

_NO_TICK = 3600.0
_NOT_STREAMED = headers.DROPPED_RESPONSE_HEADERS | {"x-accel-buffering"}


def forward(outbound: Outbound, call: ClientRequest, actor: Actor, id: str) -> ClientResponse:
    """Raises BridgeError before anything has gone to the client."""
    own = outbound.provider.local_responses.get(call.path)
    if own is not None:
        reply = _answered(call, own)
    else:
        keys = outbound.keys(call.headers)
        passed = outbound.passthrough_request(call, call.read_body(), actor)
        outgoing = replace(passed, id=id, model="passthrough")
        try:
            reply = _send(outbound, call, outgoing, keys)
        except BridgeError as error:
            error.recorded = True
            _tell(outbound, call, actor, error.status, id)
            raise
    _tell(outbound, call, actor, reply.status, id)
    return reply


def _tell(outbound: Outbound, call: ClientRequest, actor: Actor, status: int, id: str) -> None:
    provider = outbound.provider
    route = provider.passthrough_route(call.path)
    outbound.hooks.emit(PassthroughServed(provider.name, route, call.method, actor.id, status, id))


def _send(
    outbound: Outbound, call: ClientRequest, outgoing: UpstreamRequest, keys: CredentialSource
) -> ClientResponse:
    cleanup = Cleanup()
    try:
        client = watch(call.client_socket)
        cleanup.add(client.close)
        answer = outbound.send_passthrough(outgoing, keys, client)
        cleanup.add(answer.close)
        return _reply(call, answer, cleanup.release)
    except BaseException:
        cleanup.release()
        raise


def _answered(call: ClientRequest, own: bytes) -> ClientResponse:
    if call.method not in ("GET", "HEAD"):
        raise UnknownRoute(call.method, call.path)
    head = (("Content-Type", "application/json"), ("Content-Length", str(len(own))))
    return ClientResponse(200, head, (piece for piece in (own,)))


def _reply(call: ClientRequest, answer: UpstreamResponse, release: Callable[[], None]) -> ClientResponse:
    ending = StreamEnd(on_early_end=_nothing, error_event=_no_farewell, release=release)
    streamed = headers.find(answer.headers, "content-type").lower().startswith("text/event-stream")
    relay = Relay(_pieces(answer), ending, call.client_socket, streamed, call.http10)
    if not streamed:
        relay.fetch()
    kept = headers.to_client(answer.headers, _NOT_STREAMED if streamed else headers.DROPPED_RESPONSE_HEADERS)
    if streamed:
        kept.append(("X-Accel-Buffering", "no"))
    return ClientResponse(answer.status, tuple(kept), relay)


def _pieces(answer: UpstreamResponse) -> Iterator[bytes]:
    return (piece for piece in answer.iter_body(_NO_TICK) if piece)


def _nothing(error: BridgeError) -> None:
    """Nothing is recorded."""


def _no_farewell(error: BridgeError) -> bytes:
    """The API's shape of an error event is not known here."""
    return b""
