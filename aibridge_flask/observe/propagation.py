"""A trace's way in and out: https://www.w3.org/TR/trace-context/"""

from __future__ import annotations

from msgspec.structs import replace
from opentelemetry.context import Context
from opentelemetry.trace import Span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ..hooks import RequestArrived
from ..model import UpstreamRequest

_NAMES = ("traceparent", "tracestate")
_propagator = TraceContextTextMapPropagator()


def client_trace(told: RequestArrived) -> Context:
    """The trace that a request belongs to; empty where it names none."""
    return _propagator.extract(dict(zip(_NAMES, (told.traceparent, told.tracestate), strict=True)), Context())


def below(span: Span) -> Context:
    return set_span_in_context(span, Context())


def propagated(request: UpstreamRequest, span: Span) -> UpstreamRequest:
    """The client's own place in the trace gives way to ours; its state goes on only with its trace."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, below(span))
    kept = tuple(header for header in request.headers if header[0].lower() not in _NAMES)
    added = tuple((name.title(), value) for name, value in carrier.items())
    return replace(request, headers=(*kept, *added))
