"""Propagation of the trace context: https://www.w3.org/TR/trace-context/"""

from __future__ import annotations

from msgspec.structs import replace
from opentelemetry.context import Context
from opentelemetry.trace import Span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ..hooks import RequestArrived
from ..model import UpstreamRequest

_NAMES = ("traceparent", "tracestate")
_propagator = TraceContextTextMapPropagator()


def client_context(event: RequestArrived) -> Context:
    """Returns the trace context of a request, empty if it has none."""
    return _propagator.extract(
        dict(zip(_NAMES, (event.traceparent, event.tracestate), strict=True)), Context()
    )


def child_context(span: Span) -> Context:
    return set_span_in_context(span, Context())


def with_trace_headers(request: UpstreamRequest, span: Span) -> UpstreamRequest:
    """Replaces the client's trace headers by ours; `tracestate` stays if the trace is the same."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, child_context(span))
    other = tuple(header for header in request.headers if header[0].lower() not in _NAMES)
    added = tuple((name.title(), value) for name, value in carrier.items())
    return replace(request, headers=(*other, *added))
