"""A bridged request from start to end: facts, record, credential, upstream, relay."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from . import agent, clients, coding, headers
from .config import Settings
from .errors import BackgroundNotSupported, BridgeError, ClientGone, GatewayError
from .formats import Decoding, error_fold
from .headers import INTERCEPTION_HEADER
from .model import Actor, Answer, Call, Failure, Fold, HeaderList, Interceptor, Outgoing, Reply, RequestFacts
from .outbound import Outbound
from .records.events import Started, now
from .records.journal import Journal
from .records.recorder import Recorder
from .relay import Ending, Held, Relay
from .upstream.keys import Keys
from .waiting import watch

_NO_BUFFERING = ("X-Accel-Buffering", "no")
_EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True, slots=True)
class _Request:
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

    def __init__(self, settings: Settings, recorder: Recorder) -> None:
        self._settings, self._recorder = settings, recorder

    def intercept(self, outbound: Outbound, call: Call, actor: Actor, id: str) -> Reply:
        """Raises BridgeError before anything has gone to the client. `id` is the
        interception's."""
        request = self._read(outbound, call, actor, id)
        journal = Journal(self._recorder, self._settings.records, outbound.hooks, _started(request))
        journal.begin(request.facts.prompt)
        held = Held()
        try:
            answer = _send(request, journal, held)
            return self._reply(request, journal, answer, held.release)
        except BaseException as error:
            held.release()
            told = error if isinstance(error, BridgeError) else GatewayError()
            journal.answered(0 if isinstance(told, ClientGone) else told.status)
            journal.end(Failure(told.record_type, told.message))
            told.recorded = True
            raise

    def _read(self, outbound: Outbound, call: Call, actor: Actor, id: str) -> _Request:
        interceptor = outbound.provider.create_interceptor(call)
        keys = outbound.keys(call.headers)
        body = call.read_body()
        coded = call.headers.get("content-encoding", "")
        text = coding.decode(body, coded, self._settings.max_body_bytes) if coded else body
        facts = interceptor.format.read(text)
        if facts.background:
            raise BackgroundNotSupported
        return _Request(outbound, interceptor, call, actor, id, keys, body, text, facts)

    def _reply(
        self, request: _Request, journal: Journal, answer: Answer, release: Callable[[], None]
    ) -> Reply:
        streamed = _is_event_stream(answer, request.facts)
        fold = self._fold(request, answer, streamed)
        wire_format, call = request.interceptor.format, request.call
        known = all(map(coding.is_known, _codings(answer)))
        ping = wire_format.PING if streamed and known else b""
        pieces = agent.converse(answer, fold, journal, ping, self._settings.keepalive_interval)

        def settle(error: BridgeError) -> None:
            agent.settle(fold, journal, Failure(error.record_type, error.message))

        def farewell(error: BridgeError) -> bytes:
            may = streamed and fold.between and not fold.complete
            journal.exact = journal.exact and not may
            return wire_format.error_event(error, journal.id) if may else b""

        relay = Relay(pieces, Ending(settle, farewell, release), call.client_socket, streamed, call.http10)
        if not streamed:
            relay.fetch()
        return Reply(answer.status, _headers(answer, fold, streamed, journal.id), relay)

    def _fold(self, request: _Request, answer: Answer, streamed: bool) -> Fold:
        if not 200 <= answer.status < 300:
            fold = error_fold(answer.status)
        elif streamed:
            fold = request.interceptor.format.fold(request.facts)
        else:
            fold = request.interceptor.format.whole_fold()
        for name in _codings(answer):
            if coding.is_known(name):
                inflater = coding.Inflater(name, self._settings.max_body_bytes)
                fold = Decoding(fold, inflater.feed, streamed and not request.facts.asks_usage)
        return fold


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


def _outgoing(request: _Request, journal: Journal) -> Outgoing:
    """The very bytes that came, unless the format asks for more or the provider speaks otherwise."""
    asked = request.interceptor.format.ask(request.text, request.facts)
    changed = asked is not request.text or request.outbound.provider.translates
    journal.exact = not changed
    body = asked if changed else request.body
    outgoing = request.outbound.bridged(request.call, request.interceptor.url, body, request.actor, changed)
    return replace(outgoing, id=request.id, model=request.facts.model)


def _send(request: _Request, journal: Journal, held: Held) -> Answer:
    """The answer, whose head is known; `held` lets go of it and of the client."""
    outgoing = _outgoing(request, journal)
    client = watch(request.call.client_socket)
    held.add(client.close)
    journal.sending()
    endpoint, model = request.interceptor.endpoint, request.facts.model
    sent = request.outbound.send(outgoing, request.keys, endpoint, model, client)
    held.add(sent.answer.close)
    journal.answered(sent.answer.status, sent.credential.hint, sent.credential.mask)
    return sent.answer


def _codings(answer: Answer) -> list[str]:
    return coding.codings(headers.find(answer.headers, "content-encoding"))


def _is_event_stream(answer: Answer, facts: RequestFacts) -> bool:
    """By the media type that the upstream names; a success without one is what was asked for."""
    kind = headers.find(answer.headers, "content-type").lower()
    return 200 <= answer.status < 300 and (kind.startswith(_EVENT_STREAM) if kind else facts.streaming)


def _headers(answer: Answer, fold: Fold, streamed: bool, id: str) -> HeaderList:
    drop = [INTERCEPTION_HEADER.lower()]
    if streamed:  # pings may stand in between
        drop += ["content-length", "x-accel-buffering"]
    if not fold.exact:
        drop += ["content-encoding"]
    kept = headers.to_client(answer.headers, drop)
    return (*kept, *([_NO_BUFFERING] if streamed else []), (INTERCEPTION_HEADER, id))
