"""Tracer: spans made of what the hooks tell, and of the attempts that pass through here on their way out.

A request is known by its id: context variables cross neither threads nor greenlets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import time_ns

from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.trace import Span, SpanKind, StatusCode

from ..config.settings import TracingSettings
from ..errors import BridgeError
from ..hooks import Hooks, PassthroughServed, RequestArrived, RequestRejected, ToolCalled
from ..model import UpstreamRequest, UpstreamResponse
from ..records.events import (
    CredentialUsed,
    EventRecorded,
    InterceptionEnded,
    InterceptionStarted,
    Prompt,
    Started,
    TokenUsage,
)
from ..upstream.transport import Sender
from ..waiting import Client, after_fork
from . import span_facts
from .propagation import below, client_trace, propagated
from .span_facts import CLIP, Facts, known
from .spans import SpanQueue


@dataclass(slots=True)
class _Trace:
    """A request under way. `client` is the trace that it came with; `root` and `started` hold nothing
    until it is known what it is; `open` are attempts, and what is known to be wrong with them."""

    began: int
    client: Context
    root: tuple[Span, ...] = ()
    started: tuple[Started, ...] = ()
    open: dict[Span, str] = field(default_factory=dict)
    prompt: Facts = field(default_factory=dict)
    passed: bool = False


class Tracer:
    """One application's, with a provider of its own: a host may have another."""

    def __init__(self, hooks: Hooks, settings: TracingSettings) -> None:
        self._settings = settings
        spans = SpanQueue(settings.endpoint.rstrip("/") + "/v1/traces")
        resource = Resource({"service.name": "aibridge"}).merge(OTELResourceDetector().detect())
        limits = SpanLimits(max_span_attribute_length=8 * CLIP)
        provider = TracerProvider(resource=resource, shutdown_on_exit=False, span_limits=limits)
        provider.add_span_processor(spans)
        self._tracer, self.close = provider.get_tracer("aibridge"), spans.shutdown
        self._traces: dict[str, _Trace] = {}
        after_fork(self, Tracer._forked)
        hooks.on(RequestArrived, self._arrived)
        hooks.on(InterceptionStarted, self._started)
        hooks.on(EventRecorded, self._noted)
        hooks.on(ToolCalled, self._tool_called)
        hooks.on(InterceptionEnded, self._ended)
        hooks.on(PassthroughServed, self._passed)
        hooks.on(RequestRejected, self._refused)

    def wrap_sender(self, sender: Sender) -> Sender:
        """A provider's way out, each attempt on which is seen."""
        return _TracedSender(self, sender)

    def attempt(
        self, request: UpstreamRequest, send: Callable[[UpstreamRequest], UpstreamResponse]
    ) -> UpstreamResponse:
        """A bridged request's is a span until its answer's end; a passthrough request is one span
        altogether."""
        trace = self._traces.get(request.id)
        if trace is None:
            return send(request)
        span = self._upstream(trace, request) if trace.started else self._passthrough(trace)
        trace.open[span] = ""
        try:
            answer = send(propagated(request, span) if self._settings.propagate else request)
        except BaseException as error:
            trace.open[span] = error.record_type if isinstance(error, BridgeError) else type(error).__name__
            self._over(request.id, trace, span)
            raise
        trace.open[span] = str(answer.status) if answer.status >= 400 else ""
        span.set_attribute("http.response.status_code", answer.status)
        return _TracedResponse(answer, lambda: self._over(request.id, trace, span))

    def _span(self, name: str, kind: SpanKind, parent: Context, facts: Facts, began: int) -> Span:
        return self._tracer.start_span(name, parent, kind, known(facts), start_time=began)

    def _upstream(self, trace: _Trace, request: UpstreamRequest) -> Span:
        facts = {**span_facts.upstream(trace.started[0], request), **trace.prompt}
        name, parent = "Intercept.ProcessRequest.Upstream", below(trace.root[0])
        return self._span(name, SpanKind.CLIENT, parent, facts, time_ns())

    def _passthrough(self, trace: _Trace) -> Span:
        if not trace.root:
            trace.root = (self._span("Passthrough", SpanKind.SERVER, trace.client, {}, trace.began),)
        return trace.root[0]

    def _over(self, id: str, trace: _Trace, span: Span, error: str = "") -> None:
        """An attempt is over; may be called again."""
        if span not in trace.open:
            return
        error = trace.open.pop(span) or error
        if trace.started:
            _end(span, error)
        elif trace.passed:
            self._end_root(id, trace, error)

    def _end_root(self, id: str, trace: _Trace, error: str) -> None:
        self._traces.pop(id, None)
        _end(trace.root[0], error)

    def _forked(self) -> None:
        self._traces.clear()

    def _refused(self, told: RequestRejected) -> None:
        self._traces.pop(told.id, None)

    def _arrived(self, told: RequestArrived) -> None:
        self._traces[told.id] = _Trace(time_ns(), client_trace(told))

    def _started(self, told: InterceptionStarted) -> None:
        if trace := self._traces.get(told.started.id):
            facts = span_facts.interception(told.started)
            trace.started = (told.started,)
            trace.root = (self._span("Intercept", SpanKind.SERVER, trace.client, facts, trace.began),)

    def _noted(self, told: EventRecorded) -> None:
        trace, event = self._traces.get(told.started.id), told.event
        if trace is None:
            return
        if isinstance(event, Prompt) and self._settings.prompts:
            trace.prompt = span_facts.prompt(event.prompt)
        elif isinstance(event, CredentialUsed):
            trace.root[0].set_attribute("aibridge.credential.hint", event.credential_hint)
        elif isinstance(event, TokenUsage) and trace.open:
            list(trace.open)[-1].set_attributes(known(span_facts.usage(event)))

    def _tool_called(self, told: ToolCalled) -> None:
        if trace := self._traces.get(told.id):
            name, parent = "Intercept.ProcessRequest.ToolCall", below(trace.root[0])
            span = self._span(name, SpanKind.CLIENT, parent, span_facts.tool(told), told.began)
            _end(span, told.error, told.ended)

    def _ended(self, told: InterceptionEnded) -> None:
        if trace := self._traces.get(told.started.id):
            for span in list(trace.open):
                self._over(told.started.id, trace, span, told.ended.error_type)
            trace.root[0].set_attributes(known(span_facts.outcome(told)))
            self._end_root(told.started.id, trace, told.ended.error_type)

    def _passed(self, told: PassthroughServed) -> None:
        if trace := self._traces.get(told.id):
            self._passthrough(trace).set_attributes(known(span_facts.passage(told)))
            trace.passed = True
            if not trace.open:
                self._end_root(told.id, trace, str(told.status) if told.status >= 400 else "")


class _TracedSender:
    def __init__(self, traces: Tracer, sender: Sender) -> None:
        self._traces, self._sender, self.close = traces, sender, sender.close

    def send(self, request: UpstreamRequest, client: Client) -> UpstreamResponse:
        return self._traces.attempt(request, lambda sent: self._sender.send(sent, client))


class _TracedResponse:
    """An answer whose end is told."""

    def __init__(self, answer: UpstreamResponse, over: Callable[[], None]) -> None:
        self._answer, self._over = answer, over
        self.status, self.headers, self.iter_body = answer.status, answer.headers, answer.iter_body

    @property
    def complete(self) -> bool:
        return self._answer.complete

    def close(self) -> None:
        self._over()
        self._answer.close()


def _end(span: Span, error: str, at: int = 0) -> None:
    if error:
        span.set_attribute("error.type", error)
        span.set_status(StatusCode.ERROR)
    span.end(at or None)
