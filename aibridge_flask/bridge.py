"""A bridged request from start to end: facts, record, credential, upstream, relay."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from msgspec import Struct

from . import agent, clients, content_coding, headers
from .config import Settings
from .errors import BackgroundNotSupported, BridgeError, ClientDisconnected, GatewayError
from .headers import INTERCEPTION_HEADER
from .model import (
    Actor,
    ClientRequest,
    ClientResponse,
    Failure,
    HeaderList,
    Interceptor,
    Offer,
    RequestFacts,
    UpstreamRequest,
)
from .outbound import Outbound
from .records.events import Started, now
from .records.journal import Journal
from .records.recorder import Recorder
from .relay import Cleanup, Relay, StreamEnd
from .tools import ToolBox
from .turns import TurnContext, Turns
from .upstream.attempts import Attempted
from .upstream.keys import CredentialSource
from .waiting import Client, watch

_NO_BUFFERING = ("X-Accel-Buffering", "no")
_OURS = headers.DROPPED_RESPONSE_HEADERS | {INTERCEPTION_HEADER.lower()}
_SIZED = {"content-length", "x-accel-buffering"}  # not where pings may stand in between
_CODED = {"content-encoding", "content-length"}
_DROPPED = {  # whether it is streamed, and the very bytes that came
    (False, True): _OURS,
    (False, False): _OURS | _CODED,
    (True, True): _OURS | _SIZED,
    (True, False): _OURS | _SIZED | _CODED,
}


class _BridgedRequest(Struct, frozen=True):
    """A bridged request as it was read: `body` as it came, `text` the same decoded."""

    outbound: Outbound
    interceptor: Interceptor
    call: ClientRequest
    actor: Actor
    id: str
    keys: CredentialSource
    body: bytes
    text: bytes
    facts: RequestFacts


class Bridge:
    """Serves bridged requests of all providers."""

    def __init__(self, settings: Settings, recorder: Recorder, toolbox: ToolBox) -> None:
        self._settings, self._recorder, self._toolbox = settings, recorder, toolbox

    def intercept(self, outbound: Outbound, call: ClientRequest, actor: Actor, id: str) -> ClientResponse:
        """Raises BridgeError before anything has gone to the client. `id` is the
        interception's."""
        request = self._read(outbound, call, actor, id)
        journal = Journal(self._recorder, self._settings.records, outbound.hooks, _started(request))
        journal.begin(request.facts.prompt)
        cleanup = Cleanup()
        try:
            return self._reply(request, journal, self._turns(request, journal, cleanup), cleanup.release)
        except BaseException as error:
            cleanup.release()
            told = error if isinstance(error, BridgeError) else GatewayError()
            journal.head_received(0 if isinstance(told, ClientDisconnected) else told.status)
            journal.end(Failure(told.record_type, told.message))
            told.recorded = True
            raise

    def _turns(self, request: _BridgedRequest, journal: Journal, cleanup: Cleanup) -> Turns:
        """The first answer, whose head is known; `held` lets go of it, of the next ones and of the client."""
        offer = self._offer(request)
        journal.set_offered_tools(offer.tools)
        changed = offer.body is not request.text or request.outbound.provider.translates
        journal.exact = not changed
        client = watch(request.call.client_socket)
        cleanup.add(client.close)

        def send(body: bytes, client: Client) -> Attempted:
            outgoing = _outgoing(request, body if changed else request.body, changed)
            journal.upstream_started()
            endpoint, model = request.interceptor.endpoint, request.facts.model
            sent = request.outbound.send(outgoing, request.keys, endpoint, model, client)
            cleanup.add(sent.response.close)
            return sent

        settings, wire_format = self._settings, request.interceptor.format
        limits = (settings.max_body_bytes, settings.mcp.max_rounds)
        asking = TurnContext(wire_format, request.facts, offer, send, client, cleanup, *limits)
        return Turns(asking, journal, request.outbound.hooks, self._toolbox)

    def _offer(self, request: _BridgedRequest) -> Offer:
        """The very body that came, unless the format asks for more, or there are tools to offer."""
        wire_format, facts = request.interceptor.format, request.facts
        body = wire_format.upstream_body(request.text, facts)
        tools = self._toolbox.tools if request.outbound.provider.inject_tools else ()
        return wire_format.offer(body, facts, tools) if tools else Offer(body)

    def _read(self, outbound: Outbound, call: ClientRequest, actor: Actor, id: str) -> _BridgedRequest:
        interceptor = outbound.provider.create_interceptor(call)
        keys = outbound.keys(call.headers)
        body = call.read_body()
        coded = call.headers.get("content-encoding", "")
        text = content_coding.decode(body, coded, self._settings.max_body_bytes) if coded else body
        facts = interceptor.format.read(text)
        if facts.background:
            raise BackgroundNotSupported
        return _BridgedRequest(outbound, interceptor, call, actor, id, keys, body, text, facts)

    def _reply(
        self, request: _BridgedRequest, journal: Journal, turns: Turns, release: Callable[[], None]
    ) -> ClientResponse:
        wire_format, call, streamed = request.interceptor.format, request.call, turns.streamed
        ping = wire_format.PING if streamed and turns.readable else b""
        pieces = agent.converse(turns, journal, ping, self._settings.keepalive_interval)

        def on_early_end(error: BridgeError) -> None:
            pieces.close()
            agent.record_early_end(turns.fold, journal, Failure(error.record_type, error.message))

        def error_event(error: BridgeError) -> bytes:
            may = streamed and turns.fold.at_event_boundary and not turns.fold.complete
            journal.exact = journal.exact and not may
            return wire_format.error_event(error, journal.id) if may else b""

        relay = Relay(
            pieces, StreamEnd(on_early_end, error_event, release), call.client_socket, streamed, call.http10
        )
        if not streamed:
            relay.fetch()
        return ClientResponse(turns.response.status, _headers(turns, journal.id), relay)


def _started(request: _BridgedRequest) -> Started:
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


def _outgoing(request: _BridgedRequest, body: bytes, changed: bool) -> UpstreamRequest:
    whole = (request.call, request.interceptor.url, body, request.actor)
    return request.outbound.bridged_request(*whole, changed, request.id, request.facts.model)


def _headers(turns: Turns, id: str) -> HeaderList:
    kept = headers.to_client(turns.response.headers, _DROPPED[turns.streamed, turns.fold.exact])
    return (*kept, *([_NO_BUFFERING] if turns.streamed else []), (INTERCEPTION_HEADER, id))
