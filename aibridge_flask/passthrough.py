"""The white-listed proxy: the same way out, nothing read, nothing recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec.structs import replace

from . import headers
from .errors import BridgeError, UnknownRoute
from .hooks import Passed
from .model import Actor, Answer, Call, Outgoing, Reply
from .outbound import Outbound
from .relay import Ending, Held, Relay
from .upstream.keys import Keys
from .waiting import watch

_NO_TICK = 3600.0
_NOT_STREAMED = headers.NOT_DOWN | {"x-accel-buffering"}


def forward(outbound: Outbound, call: Call, actor: Actor, id: str) -> Reply:
    """Raises BridgeError before anything has gone to the client."""
    own = outbound.provider.own_answers.get(call.path)
    if own is not None:
        reply = _answered(call, own)
    else:
        keys = outbound.keys(call.headers)
        passed = outbound.passed(call, call.read_body(), actor)
        outgoing = replace(passed, id=id, model="passthrough")
        try:
            reply = _send(outbound, call, outgoing, keys)
        except BridgeError as error:
            error.recorded = True
            _tell(outbound, call, actor, error.status, id)
            raise
    _tell(outbound, call, actor, reply.status, id)
    return reply


def _tell(outbound: Outbound, call: Call, actor: Actor, status: int, id: str) -> None:
    provider = outbound.provider
    route = provider.passthrough(call.path)
    outbound.hooks.tell(Passed(provider.name, route, call.method, actor.id, status, id))


def _send(outbound: Outbound, call: Call, outgoing: Outgoing, keys: Keys) -> Reply:
    held = Held()
    try:
        client = watch(call.client_socket)
        held.add(client.close)
        answer = outbound.send_passed(outgoing, keys, client)
        held.add(answer.close)
        return _reply(call, answer, held.release)
    except BaseException:
        held.release()
        raise


def _answered(call: Call, own: bytes) -> Reply:
    if call.method not in ("GET", "HEAD"):
        raise UnknownRoute(call.method, call.path)
    head = (("Content-Type", "application/json"), ("Content-Length", str(len(own))))
    return Reply(200, head, (piece for piece in (own,)))


def _reply(call: Call, answer: Answer, release: Callable[[], None]) -> Reply:
    ending = Ending(settle=_nothing, farewell=_no_farewell, release=release)
    streamed = headers.find(answer.headers, "content-type").lower().startswith("text/event-stream")
    relay = Relay(_pieces(answer), ending, call.client_socket, streamed, call.http10)
    if not streamed:
        relay.fetch()
    kept = headers.to_client(answer.headers, _NOT_STREAMED if streamed else headers.NOT_DOWN)
    if streamed:
        kept.append(("X-Accel-Buffering", "no"))
    return Reply(answer.status, tuple(kept), relay)


def _pieces(answer: Answer) -> Iterator[bytes]:
    return (piece for piece in answer.pieces(_NO_TICK) if piece)


def _nothing(error: BridgeError) -> None:
    """Nothing is recorded."""


def _no_farewell(error: BridgeError) -> bytes:
    """The API's shape of an error event is not known here."""
    return b""
