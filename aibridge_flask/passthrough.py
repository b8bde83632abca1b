"""The white-listed proxy: the same way out, nothing read, nothing recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from . import headers
from .errors import BridgeError, GatewayError
from .hooks import Passed
from .model import Actor, Answer, Call, Reply
from .outbound import Outbound
from .relay import Ending, Held, Relay
from .waiting import watch

_NO_TICK = 3600.0


def forward(outbound: Outbound, call: Call, actor: Actor, id: str) -> Reply:
    """Raises BridgeError before anything has gone to the client."""
    keys = outbound.keys(call.headers)
    outgoing = replace(outbound.passed(call, call.read_body(), actor), id=id, model="passthrough")
    held, status = Held(), 0
    try:
        client = watch(call.client_socket)
        held.add(client.close)
        answer = outbound.send_passed(outgoing, keys, client)
        held.add(answer.close)
        reply = _reply(call, answer, held.release)
        status = reply.status
        return reply
    except BaseException as error:
        held.release()
        status = getattr(error, "status", GatewayError.status)
        raise
    finally:
        route = outbound.provider.passthrough(call.path)
        outbound.hooks.tell(Passed(outbound.provider.name, route, call.method, actor.id, status, id))


def _reply(call: Call, answer: Answer, release: Callable[[], None]) -> Reply:
    ending = Ending(settle=_nothing, farewell=_no_farewell, release=release)
    streamed = headers.find(answer.headers, "content-type").lower().startswith("text/event-stream")
    relay = Relay(_pieces(answer), ending, call.client_socket, streamed, call.http10)
    if not streamed:
        relay.fetch()
    kept = headers.to_client(answer.headers, ("x-accel-buffering",) if streamed else ())
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
