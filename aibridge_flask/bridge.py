"""A bridged request from start to end: facts, record, credential, upstream, relay."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from msgspec import Struct

from . import agent, clients, content_coding, headers
from .config import Settings
from .errors import BackgroundNotSupported, BridgeError, ClientGone, GatewayError
from .headers import INTERCEPTION_HEADER
from .model import Actor, Call, Failure, HeaderList, Interceptor, Offer, Outgoing, Reply, RequestFacts
from .outbound import Outbound
from .records.events import Started, now
from .records.journal import Journal
from .records.recorder import Recorder
from .relay import Ending, Held, Relay
from .tools import ToolBox
from .turns import Asking, Turns
from .upstream.attempts import Sent
from .upstream.keys import Keys
from .waiting import Client, watch

_NO_BUFFERING = ("X-Accel-Buffering", "no")
_OURS = headers.NOT_DOWN | {INTERCEPTION_HEADER.lower()}
_SIZED = {"content-length", "x-accel-buffering"}  # not where pings may stand in between
_CODED = {"content-encoding", "content-length"}
_DROPPED = {  # whether it is streamed, and the very bytes that came
    (False, True): _OURS,
    (False, False): _OURS | _CODED,
    (True, True): _OURS | _SIZED,
    (True, False): _OURS | _SIZED | _CODED,
}


class _Request(Struct, frozen=True):
    """A bridged request as it was read: `body` as it came, `text` the same decoded."""

    outbound: Outbound
    interceptor: Interceptor
    call: Call
    actor: Actor
    id: str
    keys: Keys
    body: bytes
    text: bytes
    facts: RequestFacts


class Bridge:
    """Serves bridged requests of all providers."""

    def __init__(self, settings: Settings, recorder: Recorder, toolbox: ToolBox) -> None:
        self._settings, self._recorder, self._toolbox = settings, recorder, toolbox

    def intercept(self, outbound: Outbound, call: Call, actor: Actor, id: str) -> Reply:
        """Raises BridgeError before anything has gone to the client. `id` is the
        interception's."""
        request = self._read(outbound, call, actor, id)
        journal = Journal(self._recorder, self._settings.records, outbound.hooks, _started(request))
        journal.begin(request.facts.prompt)
        held = Held()
        try:
            return self._reply(request, journal, self._turns(request, journal, held), held.release)
        except BaseException as error:
            held.release()
            told = error if isinstance(error, BridgeError) else GatewayError()
            journal.answered(0 if isinstance(told, ClientGone) else told.status)
            journal.end(Failure(told.record_type, told.message))
            told.recorded = True
            raise

    def _turns(self, request: _Request, journal: Journal, held: Held) -> Turns:
        """The first answer, whose head is known; `held` lets go of it, of the next ones and of the client."""
        offer = self._offer(request)
        journal.offering(offer.tools)
        changed = offer.body is not request.text or request.outbound.provider.translates
        journal.exact = not changed
        client = watch(request.call.client_socket)
        held.add(client.close)

        def send(body: bytes, client: Client) -> Sent:
            outgoing = _outgoing(request, body if changed else request.body, changed)
            journal.sending()
            endpoint, model = request.interceptor.endpoint, request.facts.model
            sent = request.outbound.send(outgoing, request.keys, endpoint, model, client)
            held.add(sent.answer.close)
            return sent

        settings, wire_format = self._settings, request.interceptor.format
        limits = (settings.max_body_bytes, settings.mcp.max_rounds)
        asking = Asking(wire_format, request.facts, offer, send, client, held, *limits)
        return Turns(asking, journal, request.outbound.hooks, self._toolbox)

    def _offer(self, request: _Request) -> Offer:
        """The very body that came, unless the format asks for more, or there are tools to offer."""
        wire_format, facts = request.interceptor.format, request.facts
        body = wire_format.ask(request.text, facts)
        tools = self._toolbox.tools if request.outbound.provider.inject_tools else ()
        return wire_format.offer(body, facts, tools) if tools else Offer(body)

    def _read(self, outbound: Outbound, call: Call, actor: Actor, id: str) -> _Request:
        interceptor = outbound.provider.create_interceptor(call)
        keys = outbound.keys(call.headers)
        body = call.read_body()
        coded = call.headers.get("content-encoding", "")
        text = content_coding.decode(body, coded, self._settings.max_body_bytes) if coded else body
        facts = interceptor.format.read(text)
        if facts.background:
            raise BackgroundNotSupported
        return _Request(outbound, interceptor, call, actor, id, keys, body, text, facts)

    def _reply(self, request: _Request, journal: Journal, turns: Turns, release: Callable[[], None]) -> Reply:
        wire_format, call, streamed = request.interceptor.format, request.call, turns.streamed
        ping = wire_format.PING if streamed and turns.readable else b""
        pieces = agent.converse(turns, journal, ping, self._settings.keepalive_interval)

        def settle(error: BridgeError) -> None:
            pieces.close()
            agent.settle(turns.fold, journal, Failure(error.record_type, error.message))

        def farewell(error: BridgeError) -> bytes:
            may = streamed and turns.fold.between and not turns.fold.complete
            journal.exact = journal.exact and not may
            return wire_format.error_event(error, journal.id) if may else b""

        relay = Relay(pieces, Ending(settle, farewell, release), call.client_socket, streamed, call.http10)
        if not streamed:
            relay.fetch()
        return Reply(turns.answer.status, _headers(turns, journal.id), relay)


def _started(request: _Request) -> Started:
    call, provider, facts = request.call, request.outbound.provider, request.facts
    client = clients.client_name(call.headers)
    agent_id, parent_agent_id = clients.agents(call.headers)
    return Started(
        id=request.id,
        initiator_id=request.actor.id,
        started_at=now(),
        metadata=request.actor.metadata,
        provider=provider.type,
        provider_name=provider.name,
        model=facts.model,
        client=client,
        client_session_id=clients.session_id(client, call.headers, facts.user_id),
        user_agent=call.headers.get("user-agent", ""),
        credential_kind=request.keys.first.kind,
        credential_hint=request.keys.first.hint,
        correlating_tool_call_id=facts.correlating_tool_call_id,
        agent_id=agent_id,
        parent_agent_id=parent_agent_id,
        route=request.interceptor.endpoint,
        streaming=facts.streaming,
        request_sha256=hashlib.sha256(request.body).hexdigest(),
    )


def _outgoing(request: _Request, body: bytes, changed: bool) -> Outgoing:
    whole = (request.call, request.interceptor.url, body, request.actor)
    return request.outbound.bridged(*whole, changed, request.id, request.facts.model)


def _headers(turns: Turns, id: str) -> HeaderList:
    kept = headers.to_client(turns.answer.headers, _DROPPED[turns.streamed, turns.fold.exact])
    return (*kept, *([_NO_BUFFERING] if turns.streamed else []), (INTERCEPTION_HEADER, id))
