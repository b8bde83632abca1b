"""An OTLP collector on loopback: the scripted upstream, with what it heard decoded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.support.server import until
from tests.support.upstream import Upstream, answer


@dataclass(frozen=True)
class Seen:
    """A span as the collector has it; ids are hexadecimal, `parent` is empty at a root."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    state: str
    began: int
    ended: int
    failed: bool
    facts: dict[str, Any]
    service: str


class Collector:
    def __init__(self) -> None:
        self.wire = Upstream()
        self.wire.handler = lambda heard: [answer(200, b"", kind="application/x-protobuf")]
        self.settings = {"endpoint": self.wire.url}

    def spans(self, count: int) -> list[Seen]:
        """All spans, once there are so many, in the order in which they began."""
        until(lambda: len(list(self._seen())) >= count)
        found = sorted(self._seen(), key=lambda span: (span.began, span.parent))
        assert len(found) == count, [span.name for span in found]
        return found

    def _seen(self) -> Iterator[Seen]:
        for heard in list(self.wire.heard):
            assert (heard.method, heard.target) == ("POST", "/v1/traces")
            request = ExportTraceServiceRequest.FromString(heard.body)
            for resource in request.resource_spans:
                service = _facts(resource.resource.attributes)["service.name"]
                for scope in resource.scope_spans:
                    yield from (_seen(span, service) for span in scope.spans)

    def close(self) -> None:
        self.wire.close()


def _seen(span: Any, service: str) -> Seen:
    return Seen(
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        state=span.trace_state,
        began=span.start_time_unix_nano,
        ended=span.end_time_unix_nano,
        failed=span.status.code == Status.STATUS_CODE_ERROR,
        facts=_facts(span.attributes),
        service=service,
    )


def _facts(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
