"""Requests and answers pass the bridge unchanged, byte for byte."""

from __future__ import annotations

import hashlib
import json
import re

import pytest

from tests.support.exchanges import ALL, Exchange
from tests.support.server import Client, Server
from tests.support.upstream import Upstream, event_stream, http_response

_USAGE_CHUNK = re.compile(rb'data: \{[^\n]*"choices":\[\],"usage":\{[^\n]*\n\n')


def replay(
    upstream: Upstream, client: Client, exchange: Exchange, size: int
) -> tuple[int, dict[str, str], bytes, bool]:
    """Sends an exchange through the bridge; the upstream writes chunks of `size` bytes."""
    if exchange.streaming and not exchange.is_message:
        upstream.enqueue(*event_stream(exchange.answer, size, "x-request-id: req_1"))
    else:
        status, body = exchange.status_and_body()
        upstream.enqueue(http_response(status, body, "x-request-id: req_1"))
    client.send("POST", exchange.route, exchange.request, content_type="application/json")
    status, headers = client.head()
    received, whole = client.body(headers)
    return status, headers, received, whole


@pytest.mark.parametrize("exchange", ALL, ids=lambda exchange: exchange.name)
@pytest.mark.parametrize("size", [0, 7])
def test_every_answer_passes_unchanged(
    server: Server, upstream: Upstream, exchange: Exchange, size: int
) -> None:
    status, body = exchange.status_and_body()
    client = server.connect()
    actual_status, headers, received, whole = replay(upstream, client, exchange, size)
    client.close()
    (upstream_request,) = upstream.requests
    expected = body if exchange.includes_usage else _USAGE_CHUNK.sub(b"", body)
    assert (actual_status, received, whole) == (status, expected, True)
    assert headers["x-request-id"] == "req_1"
    assert upstream_request.target == exchange.route.removeprefix("/anthropic").removeprefix("/openai")
    record = server.record(headers["x-aibridge-interception-id"])
    assert record["request_sha256"] == hashlib.sha256(exchange.request).hexdigest()
    assert record["response_sha256"] == hashlib.sha256(body).hexdigest()
    assert record["wire_exact"] is exchange.includes_usage
    if exchange.includes_usage:
        assert upstream_request.body == exchange.request
    else:
        sent = json.loads(upstream_request.body)
        assert sent.pop("stream_options") == {"include_usage": True}
        assert sent == json.loads(exchange.request)
