"""Traces: spans for the events of the hooks, and for each attempt at an upstream.

Requests are identified by their id: context variables do not cross threads or greenlets.
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
from ..model import UpstreamRequest
from ..protocols import UpstreamResponse
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
from .propagation import child_context, client_context, with_trace_headers
from .span_facts import MAX_LENGTH, Attributes, non_empty
from .spans import SpanQueue


@dataclass(slots=True)
class _Trace:
    """A request in progress, and the context that it came with (`client`).

    `root` and `started` are empty until its kind is known. `open_spans` are attempts, with their errors.
    """

    began: int
    client: Context
    root: tuple[Span, ...] = ()
    started: tuple[Started, ...] = ()
    open_spans: dict[Span, str] = field(default_factory=dict)
    prompt: Attributes = field(default_factory=dict)
    is_served: bool = False


class Tracer:
    """The traces of one application. It has its own tracer provider: a host may have another."""

    def __init__(self, hooks: Hooks, settings: TracingSettings) -> None:
        self._settings = settings
        spans = SpanQueue(settings.endpoint.rstrip("/") + "/v1/traces")
        resource = Resource({"service.name": "aibridge"}).merge(OTELResourceDetector().detect())
        limits = SpanLimits(max_span_attribute_length=8 * MAX_LENGTH)
        provider = TracerProvider(resource=resource, shutdown_on_exit=False, span_limits=limits)
        provider.add_span_processor(spans)
        self._otel_tracer, self.close = provider.get_tracer("aibridge"), spans.shutdown
        self._traces: dict[str, _Trace] = {}
        after_fork(self, Tracer._reset)
        hooks.on(RequestArrived, self._request_arrived)
        hooks.on(InterceptionStarted, self._interception_started)
        hooks.on(EventRecorded, self._event_recorded)
        hooks.on(ToolCalled, self._tool_called)
        hooks.on(InterceptionEnded, self._interception_ended)
        hooks.on(PassthroughServed, self._passthrough_served)
        hooks.on(RequestRejected, self._request_rejected)

    def wrap_sender(self, sender: Sender) -> Sender:
        """Returns a sender that traces each attempt."""
        return _TracedSender(self, sender)

    def attempt(
        self, request: UpstreamRequest, send: Callable[[UpstreamRequest], UpstreamResponse]
    ) -> UpstreamResponse:
        """Sends a request within a span.

        Each attempt of a bridged request has a span, which ends with the response; a passthrough request has
        one span in total.
        """
        trace = self._traces.get(request.id)
        if trace is None:
            return send(request)
        span = self._start_upstream_span(trace, request) if trace.started else self._passthrough_span(trace)
        trace.open_spans[span] = ""
        try:
            response = send(with_trace_headers(request, span) if self._settings.propagate else request)
        except BaseException as error:
            trace.open_spans[span] = (
                error.record_type if isinstance(error, BridgeError) else type(error).__name__
            )
            self._end_attempt(request.id, trace, span)
            raise
        trace.open_spans[span] = str(response.status) if response.status >= 400 else ""
        span.set_attribute("http.response.status_code", response.status)
        return _TracedResponse(response, lambda: self._end_attempt(request.id, trace, span))

    def _start_span(
        self, name: str, kind: SpanKind, parent: Context, attributes: Attributes, began: int
    ) -> Span:
        return self._otel_tracer.start_span(name, parent, kind, non_empty(attributes), start_time=began)

    def _start_upstream_span(self, trace: _Trace, request: UpstreamRequest) -> Span:
        attributes = {**span_facts.upstream(trace.started[0], request), **trace.prompt}
        name, parent = "Intercept.ProcessRequest.Upstream", child_context(trace.root[0])
        return self._start_span(name, SpanKind.CLIENT, parent, attributes, time_ns())

    def _passthrough_span(self, trace: _Trace) -> Span:
        if not trace.root:
            trace.root = (self._start_span("Passthrough", SpanKind.SERVER, trace.client, {}, trace.began),)
        return trace.root[0]

    def _end_attempt(self, id: str, trace: _Trace, span: Span, error: str = "") -> None:
        """Ends an attempt's span. May be called again."""
        if span not in trace.open_spans:
            return
        error = trace.open_spans.pop(span) or error
        if trace.started:
            _end_span(span, error)
        elif trace.is_served:
            self._end_root(id, trace, error)

    def _end_root(self, id: str, trace: _Trace, error: str) -> None:
        self._traces.pop(id, None)
        _end_span(trace.root[0], error)

    def _reset(self) -> None:
        self._traces.clear()

    def _request_rejected(self, event: RequestRejected) -> None:
        self._traces.pop(event.id, None)

    def _request_arrived(self, event: RequestArrived) -> None:
        self._traces[event.id] = _Trace(time_ns(), client_context(event))

    def _interception_started(self, event: InterceptionStarted) -> None:
        if trace := self._traces.get(event.started.id):
            attributes = span_facts.interception(event.started)
            trace.started = (event.started,)
            trace.root = (
                self._start_span("Intercept", SpanKind.SERVER, trace.client, attributes, trace.began),
            )

    def _event_recorded(self, event: EventRecorded) -> None:
        trace, recorded = self._traces.get(event.started.id), event.event
        if trace is None:
            return
        if isinstance(recorded, Prompt) and self._settings.prompts:
            trace.prompt = span_facts.prompt(recorded.prompt)
        elif isinstance(recorded, CredentialUsed):
            trace.root[0].set_attribute("aibridge.credential.hint", recorded.credential_hint)
        elif isinstance(recorded, TokenUsage) and trace.open_spans:
            list(trace.open_spans)[-1].set_attributes(non_empty(span_facts.token_usage(recorded)))

    def _tool_called(self, event: ToolCalled) -> None:
        if trace := self._traces.get(event.id):
            name, parent = "Intercept.ProcessRequest.ToolCall", child_context(trace.root[0])
            span = self._start_span(name, SpanKind.CLIENT, parent, span_facts.tool_call(event), event.began)
            _end_span(span, event.error, event.ended)

    def _interception_ended(self, event: InterceptionEnded) -> None:
        if trace := self._traces.get(event.started.id):
            for span in list(trace.open_spans):
                self._end_attempt(event.started.id, trace, span, event.ended.error_type)
            trace.root[0].set_attributes(non_empty(span_facts.outcome(event)))
            self._end_root(event.started.id, trace, event.ended.error_type)

    def _passthrough_served(self, event: PassthroughServed) -> None:
        if trace := self._traces.get(event.id):
            self._passthrough_span(trace).set_attributes(non_empty(span_facts.passthrough(event)))
            trace.is_served = True
            if not trace.open_spans:
                self._end_root(event.id, trace, str(event.status) if event.status >= 400 else "")


class _TracedSender:
    def __init__(self, tracer: Tracer, sender: Sender) -> None:
        self._tracer, self._sender, self.close = tracer, sender, sender.close

    def send(self, request: UpstreamRequest, client: Client) -> UpstreamResponse:
        return self._tracer.attempt(request, lambda traced: self._sender.send(traced, client))


class _TracedResponse:
    """A response that calls `on_end` when it is closed."""

    def __init__(self, response: UpstreamResponse, on_end: Callable[[], None]) -> None:
        self._response, self._on_end = response, on_end
        self.status, self.headers, self.iter_body = response.status, response.headers, response.iter_body

    @property
    def complete(self) -> bool:
        return self._response.complete

    def close(self) -> None:
        self._on_end()
        self._response.close()


def _end_span(span: Span, error: str, at: int = 0) -> None:
    if error:
        span.set_attribute("error.type", error)
        span.set_status(StatusCode.ERROR)
    span.end(at or None)
