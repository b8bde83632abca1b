"""An OTLP collector on loopback: the scripted upstream, which decodes the spans it receives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.support.server import wait_until
from tests.support.upstream import Upstream, http_response


@dataclass(frozen=True)
class ReceivedSpan:
    """A span as the collector received it; ids are hexadecimal, `parent` is empty for a root."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    state: str
    began: int
    ended: int
    failed: bool
    attributes: dict[str, Any]
    service: str


class Collector:
    def __init__(self) -> None:
        self.wire = Upstream()
        self.wire.handler = lambda received: [http_response(200, b"", kind="application/x-protobuf")]
        self.settings = {"endpoint": self.wire.url}

    def spans(self, count: int) -> list[ReceivedSpan]:
        """Waits for `count` spans; returns all in the order in which they began."""
        wait_until(lambda: len(list(self._received_spans())) >= count)
        spans = sorted(self._received_spans(), key=lambda span: (span.began, span.parent))
        assert len(spans) == count, [span.name for span in spans]
        return spans

    def _received_spans(self) -> Iterator[ReceivedSpan]:
        for received in list(self.wire.requests):
            assert (received.method, received.target) == ("POST", "/v1/traces")
            request = ExportTraceServiceRequest.FromString(received.body)
            for resource in request.resource_spans:
                service = _attributes(resource.resource.attributes)["service.name"]
                for scope in resource.scope_spans:
                    yield from (_decode(span, service) for span in scope.spans)

    def close(self) -> None:
        self.wire.close()


def _decode(span: Any, service: str) -> ReceivedSpan:
    return ReceivedSpan(
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        state=span.trace_state,
        began=span.start_time_unix_nano,
        ended=span.end_time_unix_nano,
        failed=span.status.code == Status.STATUS_CODE_ERROR,
        attributes=_attributes(span.attributes),
        service=service,
    )


def _attributes(attributes: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}
