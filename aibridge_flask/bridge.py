"""A bridged request from start to end: facts, record, credential, upstream, relay."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from . import agent, clients, coding, headers
from .config import Settings
from .errors import BackgroundNotSupported, BridgeError, ClientGone
from .formats import Decoding, error_fold
from .headers import INTERCEPTION_HEADER
from .model import Actor, Call, Failure, Fold, HeaderList, Interceptor, Outgoing, Reply, RequestFacts
from .outbound import Outbound
from .records.events import Started, now
from .records.journal import Journal
from .records.recorder import Recorder
from .relay import Ending, Relay
from .upstream.keys import Credential
from .upstream.transport import WireAnswer
from .waiting import Client, watch

_NO_BUFFERING = ("X-Accel-Buffering", "no")
_EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True, slots=True)
class _Reading:
    """A request as it was read: its bytes, the same decoded, and its facts."""

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
        interceptor = outbound.provider.create_interceptor(call)
        credential = outbound.credential(call.headers)
        request = self._read(interceptor, call)
        journal = self._journal(outbound, interceptor, call, actor, id, credential, request)
        journal.begin(request.facts.prompt)
        asked = interceptor.format.ask(request.text, request.facts)
        changed = asked is not request.text
        journal.exact = not changed
        body = asked if changed else request.body
        outgoing = outbound.bridged(call, interceptor.url, body, credential, actor, changed)
        client, answer = _send(outbound, outgoing, call, journal)
        return self._reply(interceptor, call, request.facts, journal, client, answer)

    def _read(self, interceptor: Interceptor, call: Call) -> _Reading:
        body = call.read_body()
        coded = call.headers.get("content-encoding", "")
        text = coding.decode(body, coded, self._settings.max_body_bytes) if coded else body
        facts = interceptor.format.read(text)
        if facts.background:
            raise BackgroundNotSupported
        return _Reading(body, text, facts)

    def _journal(
        self, outbound: Outbound, interceptor: Interceptor, call: Call, actor: Actor, id: str,
        credential: Credential, request: _Reading,
    ) -> Journal:  # fmt: skip
        client = clients.client_name(call.headers)
        agent_id, parent_agent_id = clients.agents(call.headers)
        started = Started(
            id=id,
            initiator_id=actor.id,
            started_at=now(),
            metadata=actor.metadata,
            provider=outbound.provider.type,
            provider_name=outbound.provider.name,
            model=request.facts.model,
            client=client,
            client_session_id=clients.session_id(client, call.headers, request.facts.user_id),
            user_agent=call.headers.get("user-agent", ""),
            credential_kind=credential.kind,
            credential_hint=credential.hint,
            correlating_tool_call_id=request.facts.correlating_tool_call_id,
            agent_id=agent_id,
            parent_agent_id=parent_agent_id,
            route=interceptor.endpoint,
            streaming=request.facts.streaming,
            request_sha256=hashlib.sha256(request.body).hexdigest(),
        )
        return Journal(self._recorder, self._settings.records, self._settings.prices, started)

    def _reply(
        self, interceptor: Interceptor, call: Call, facts: RequestFacts, journal: Journal,
        client: Client, answer: WireAnswer,
    ) -> Reply:  # fmt: skip
        streamed = _is_event_stream(answer, facts)
        fold = self._fold(interceptor, facts, answer, streamed)
        ping = interceptor.format.PING if streamed else b""
        pieces = agent.converse(answer, fold, journal, ping, self._settings.keepalive_interval)

        def settle(error: BridgeError) -> None:
            agent.settle(fold, journal, Failure(error.record_type, error.message))

        def farewell(error: BridgeError) -> bytes:
            may = streamed and fold.between and not fold.complete
            journal.exact = journal.exact and not may
            return interceptor.format.error_event(error, journal.id) if may else b""

        def release() -> None:
            answer.close()
            client.close()

        relay = Relay(pieces, Ending(settle, farewell, release), call.client_socket, streamed, call.http10)
        return Reply(answer.status, _headers(answer, fold, streamed, journal.id), relay)

    def _fold(self, interceptor: Interceptor, facts: RequestFacts, answer: WireAnswer, streamed: bool) -> Fold:
        if not 200 <= answer.status < 300:
            fold = error_fold(answer.status)
        else:
            fold = interceptor.format.fold(facts) if streamed else interceptor.format.whole_fold()
        for name in coding.codings(headers.find(answer.headers, "content-encoding")):
            if coding.is_known(name):
                inflater = coding.Inflater(name, self._settings.max_body_bytes)
                fold = Decoding(fold, inflater.feed, streamed and not facts.asks_usage)
        return fold


def _send(outbound: Outbound, outgoing: Outgoing, call: Call, journal: Journal) -> tuple[Client, WireAnswer]:
    """The answer's head, or the end of the record."""
    client = watch(call.client_socket)
    try:
        answer = outbound.send(outgoing, client)
    except BaseException as error:
        client.close()
        told = error if isinstance(error, BridgeError) else BridgeError()
        journal.answered(0 if isinstance(told, ClientGone) else told.status)
        journal.end(Failure(told.record_type, told.message))
        raise
    journal.answered(answer.status)
    return client, answer


def _is_event_stream(answer: WireAnswer, facts: RequestFacts) -> bool:
    """By the media type that the upstream names; a success without one is what was asked for."""
    kind = headers.find(answer.headers, "content-type").lower()
    return 200 <= answer.status < 300 and (kind.startswith(_EVENT_STREAM) if kind else facts.streaming)


def _headers(answer: WireAnswer, fold: Fold, streamed: bool, id: str) -> HeaderList:
    drop = []
    if streamed:  # pings may stand in between
        drop += ["content-length", "x-accel-buffering"]
    if not fold.exact:
        drop += ["content-encoding"]
    kept = headers.to_client(answer.headers, drop)
    return (*kept, *([_NO_BUFFERING] if streamed else []), (INTERCEPTION_HEADER, id))
