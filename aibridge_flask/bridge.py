"""A bridged request from start to end: read facts, record, choose a credential, send, relay the response."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from math import inf

from msgspec import Struct
from msgspec.structs import replace

from . import agent, clients, content_coding, headers
from .config import Settings
from .errors import (
    BackgroundNotSupported,
    BridgeError,
    ClientDisconnected,
    GatewayError,
    LimitError,
    SessionStopped,
)
from .formats import estimated_input
from .headers import INTERCEPTION_HEADER
from .in_flight import InFlight
from .limits.limiter import Admission, Asking, Limiter
from .model import (
    EMPTY,
    Actor,
    ClientRequest,
    ClientResponse,
    Failure,
    HeaderList,
    RequestFacts,
    UpstreamRequest,
    identifier,
)
from .offers import Offered, Offers, own_body
from .outbound import Outbound
from .protocols import Format
from .providers.provider import Interceptor
from .records.events import Started, now
from .records.interception import InterceptionRecord
from .records.recorder import Recorder
from .relay import Cleanup, Relay, StreamEnd
from .tools import ToolBox
from .turns import Send, TurnContext, Turns
from .upstream.attempts import Attempted
from .upstream.buffered import BufferedResponse
from .upstream.keys import CredentialSource
from .waiting import Client, run_if_large, watch

_NO_BUFFERING = ("X-Accel-Buffering", "no")
_SET_BY_BRIDGE = headers.DROPPED_RESPONSE_HEADERS | {INTERCEPTION_HEADER.lower()}
_STREAM_HEADERS = {"content-length", "x-accel-buffering"}  # pings change the length of a stream
_BODY_HEADERS = {"content-encoding", "content-length"}
_REFUSED_BODY = (400, 422)
_DROPPED = {  # by (streamed, body unchanged)
    (False, True): _SET_BY_BRIDGE,
    (False, False): _SET_BY_BRIDGE | _BODY_HEADERS,
    (True, True): _SET_BY_BRIDGE | _STREAM_HEADERS,
    (True, False): _SET_BY_BRIDGE | _STREAM_HEADERS | _BODY_HEADERS,
}


class _BridgedRequest(Struct, frozen=True):
    """A bridged request whose body has been read. `decoded` is `body` without its content codings, `digest`
    is the SHA-256 of `body`.
    """

    outbound: Outbound
    interceptor: Interceptor
    client_request: ClientRequest
    actor: Actor
    id: str
    credentials: CredentialSource
    body: bytes
    decoded: bytes
    facts: RequestFacts
    digest: str


class Bridge:
    """Serves the bridged requests of all providers."""

    def __init__(
        self,
        settings: Settings,
        recorder: Recorder,
        toolbox: ToolBox,
        limiter: Limiter,
        in_flight: InFlight,
    ) -> None:
        self._settings, self._recorder, self._toolbox = settings, recorder, toolbox
        self._limiter, self._in_flight = limiter, in_flight
        self._offers = Offers(toolbox)

    def intercept(
        self, outbound: Outbound, client_request: ClientRequest, actor: Actor, id: str
    ) -> ClientResponse:
        """Serves a bridged request; `id` is the interception's. The body of the response is still to be read.

        Raises BridgeError before anything has been sent to the client.
        """
        request = self._read(outbound, client_request, actor, id)
        made = outbound.ownership.made_by(request.facts, actor, request.credentials.first)
        sizes = len(request.decoded), request.facts.max_output
        asking = self._limiter.prepare(_start_event(request), request.interceptor.format.NAME, *sizes)
        record = InterceptionRecord(
            self._recorder, self._settings.records, outbound.hooks, asking.started, made
        )
        record.begin(request.facts.prompt)
        cleanup = Cleanup()
        try:
            admitted = self._admit(asking, record)
            turns = self._send(request, record, cleanup)
            return self._respond(request, record, turns, admitted.headers, cleanup.close)
        except BaseException as error:
            cleanup.close()
            _record_failure(record, error)
            raise

    def _read(
        self, outbound: Outbound, client_request: ClientRequest, actor: Actor, id: str
    ) -> _BridgedRequest:
        interceptor = outbound.provider.create_interceptor(client_request)
        credentials = outbound.credentials_for(client_request.headers)
        body = client_request.read_body()
        encoding = client_request.headers.get("content-encoding", "")
        read = partial(_read_body, body, encoding, self._settings.max_body_bytes, interceptor.format)
        decoded, facts, digest = run_if_large(inf if encoding else len(body), read)
        if facts.background:
            raise BackgroundNotSupported
        if facts.side_kind and clients.client_name(client_request.headers) in clients.MAKES_SIDE_REQUESTS:
            facts = replace(facts, kind=facts.side_kind, prompt="")
        outbound.ownership.check_facts(facts, actor, credentials.first)
        return _BridgedRequest(
            outbound, interceptor, client_request, actor, id, credentials, body, decoded, facts, digest
        )

    def _admit(self, asking: Asking, record: InterceptionRecord) -> Admission:
        """Raises LimitError."""
        admitted = self._limiter.admit(asking)
        record.limit_id = admitted.limit_id
        self._limiter.under_way.watch(record.id, lambda: record.estimate_output())  # noqa: PLW0108 - it is set later
        return admitted

    def _send(self, request: _BridgedRequest, record: InterceptionRecord, cleanup: Cleanup) -> Turns:
        """Sends the request, and returns once the head of the first response has been read."""
        provider, wire_format = request.outbound.provider, request.interceptor.format
        client = watch(request.client_request.client_socket)
        cleanup.add(client.close)
        cleanup.add(self._in_flight.add(record, client))
        offered = self._offers.make(provider, wire_format, request.facts, request.decoded)
        is_changed = offered.offer.body is not request.decoded
        record.exact = not (is_changed or provider.translates)

        def send(body: bytes, client: Client, added: Mapping[str, str] = EMPTY) -> Attempted:
            is_decoded = body is not request.decoded or provider.translates
            sent_body = body if is_decoded else request.body
            upstream_request = _upstream_request(request, sent_body, is_decoded, added)
            record.upstream_started()
            endpoint, model = request.interceptor.endpoint, request.facts.model
            target = (request.credentials, endpoint, model, client, record.count_attempt)
            attempted = request.outbound.send(upstream_request, *target)
            cleanup.add(attempted.response.close)
            return attempted

        attempted = send(offered.offer.body, client)
        if is_changed and attempted.response.status in _REFUSED_BODY:
            attempted, offered = self._send_unchanged(request, offered, attempted, send, client)
            record.exact = not provider.translates
        record.set_offered_tools(offered.offer.tools)
        limits = (self._settings.max_body_bytes, self._settings.mcp.max_rounds)
        follow_up = partial(send, added=provider.follow_up_headers)
        context = TurnContext(wire_format, offered.facts, offered.offer, follow_up, client, cleanup, *limits)
        return Turns(context, attempted, record, request.outbound.hooks, self._toolbox)

    def _send_unchanged(
        self, request: _BridgedRequest, offered: Offered, refused: Attempted, send: Send, client: Client
    ) -> tuple[Attempted, Offered]:
        """Sends the client's own body once, since what was added to it may be what the upstream refuses."""
        response = BufferedResponse(refused.response)
        response.close()
        attempted = send(request.decoded, client)
        if 200 <= attempted.response.status < 300:
            self._offers.remember(request.outbound.provider, offered, response.beginning)
        return attempted, own_body(request.facts, request.decoded)

    def _respond(
        self,
        request: _BridgedRequest,
        record: InterceptionRecord,
        turns: Turns,
        added: HeaderList,
        close: Callable[[], None],
    ) -> ClientResponse:
        wire_format, client_request = request.interceptor.format, request.client_request
        ping = wire_format.PING if turns.streamed and turns.is_readable else b""
        pieces = agent.converse(turns, record, ping, self._settings.keepalive_interval)

        def record_early_end(error: BridgeError) -> None:
            pieces.close()
            agent.record_early_end(turns.fold, record, Failure(error.record_type, error.message))

        def error_event(error: BridgeError) -> bytes:
            is_possible = turns.streamed and turns.fold.at_event_boundary and not turns.fold.complete
            record.exact = record.exact and not is_possible
            return wire_format.error_event(error, record.id) if is_possible else b""

        stream_end = StreamEnd(record_early_end, error_event, close)
        client = (client_request.client_socket, turns.streamed, client_request.http10)
        relay = Relay(pieces, stream_end, *client)
        if not turns.streamed:
            relay.prefetch()
        return ClientResponse(turns.response.status, (*_response_headers(turns, record.id), *added), relay)


def _record_failure(record: InterceptionRecord, error: BaseException) -> None:
    reported = error if isinstance(error, BridgeError) else GatewayError()
    has_left = isinstance(reported, ClientDisconnected)
    if isinstance(reported, LimitError):
        record.limit_id = reported.limit_id
    if has_left or isinstance(reported, SessionStopped):
        record.estimate()
    record.head_received(0 if has_left else reported.status)
    record.end(Failure(reported.record_type, reported.message))
    reported.is_reported = True


def _read_body(
    body: bytes, encoding: str, limit: int, wire_format: Format
) -> tuple[bytes, RequestFacts, str]:
    """Returns the decoded body, its facts and the digest of what was sent."""
    decoded = content_coding.decode(body, encoding, limit) if encoding else body
    return decoded, wire_format.read(decoded), hashlib.sha256(body).hexdigest()


def _start_event(request: _BridgedRequest) -> Started:
    client_headers, facts = request.client_request.headers, request.facts
    provider, credential = request.outbound.provider, request.credentials.first
    client = clients.client_name(client_headers)
    agent_id, parent_agent_id = map(_recorded, clients.agent_ids(client_headers))
    return Started(
        id=request.id,
        initiator_id=request.actor.id,
        started_at=now(),
        metadata=request.actor.metadata,
        provider=provider.type,
        provider_name=provider.name,
        model=facts.model,
        client=client,
        client_session_id=_recorded(clients.session_id(client, client_headers, facts.user_id)),
        user_agent=_recorded(client_headers.get("user-agent", "")),
        credential_kind=credential.kind,
        credential_hint=credential.hint,
        correlating_tool_call_id=facts.correlating_tool_call_id,
        agent_id=agent_id,
        parent_agent_id=parent_agent_id,
        route=request.interceptor.endpoint,
        streaming=facts.streaming,
        request_sha256=request.digest,
        kind=facts.kind,
        profile=provider.profile_for(facts.model),
        groups=request.actor.groups,
        token_id=request.actor.token_id,
        estimated_input=estimated_input(len(request.decoded)),
    )


def _recorded(value: str) -> str:
    """Returns a client's header as it stands in records."""
    return identifier(headers.without_token(value))


def _upstream_request(
    request: _BridgedRequest, body: bytes, is_decoded: bool, added: Mapping[str, str]
) -> UpstreamRequest:
    client_request = request.client_request
    if added:
        client_request = replace(client_request, headers={**client_request.headers, **added})
    target = (client_request, request.interceptor.url, body, request.actor, request.credentials)
    return request.outbound.bridged_request(*target, is_decoded, request.id, request.facts.model)


def _response_headers(turns: Turns, id: str) -> HeaderList:
    forwarded = headers.to_client(turns.response.headers, _DROPPED[turns.streamed, turns.fold.exact])
    return (*forwarded, *([_NO_BUFFERING] if turns.streamed else []), (INTERCEPTION_HEADER, id))
