"""Traces as an OTLP collector receives them."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from flask import Flask
from opentelemetry import trace

from aibridge_flask import ConfigError, config
from aibridge_flask.config.settings import TracingSettings
from aibridge_flask.hooks import Hooks, RequestArrived, ToolCalled
from aibridge_flask.observe.tracing import Tracer
from aibridge_flask.records.events import Ended, InterceptionEnded, InterceptionStarted, Started
from tests.conftest import MakeApp, Start, providers
from tests.support import claude
from tests.support.collector import Collector
from tests.support.dialogue import ASK, ASK_BLOCKING, BLOCK, END, MESSAGES, START
from tests.support.mcp import ScriptedMcp
from tests.support.server import PREFIX, ROOT, Server, check_log, free_port, wait_until
from tests.support.upstream import (
    CLOSE,
    WAIT_FOR_CLOSE,
    Upstream,
    chunk,
    event_stream,
    http_response,
    stream_head,
)

TRACE_ID, PARENT_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT_SPAN}-01"
UPSTREAM_SPAN = "Intercept.ProcessRequest.Upstream"
TOOL_SPAN = "Intercept.ProcessRequest.ToolCall"
BLOCKING_RESPONSE = b'{"id":"msg_1","model":"claude-x-1","usage":{"input_tokens":3,"output_tokens":5,"cache_read_input_tokens":10,"cache_creation_input_tokens":100}}'


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    yield server
    server.close()


def ask(
    server: Server, body: bytes = ASK_BLOCKING, path: str = MESSAGES, method: str = "POST", **headers: str
) -> str:
    """Sends a request; returns the interception's id, empty if there is none."""
    client = server.connect()
    client.send(method, path, body, **headers)
    _, response_headers = client.head()
    client.body(response_headers)
    client.close()
    return response_headers.get("x-aibridge-interception-id", "")


def post_in_process(
    app: Flask, body: bytes = ASK_BLOCKING, path: str = MESSAGES, method: str = "POST", **headers: str
) -> None:
    """Sends a request to an application in this process."""
    app.test_client().open(PREFIX + path, method=method, data=body, headers=headers, buffered=True)


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_a_bridged_request_is_a_root_span_and_an_upstream_span(
    start: Start, upstream: Upstream, collector: Collector, kind: str
) -> None:
    server = start(kind=kind, tracing=collector.settings)
    upstream.enqueue(*event_stream(START + BLOCK + END, 40))
    before = time.time_ns()
    id = ask(server, ASK, traceparent=TRACEPARENT, tracestate="a=1", User_Agent="claude-cli/2.1")
    root, call = collector.spans(2)
    assert (root.name, root.kind, root.trace, root.parent, root.state) == (
        "Intercept",
        "SERVER",
        TRACE_ID,
        PARENT_SPAN,
        "a=1",
    )
    assert (call.name, call.kind, call.trace, call.parent) == (UPSTREAM_SPAN, "CLIENT", TRACE_ID, root.id)
    assert before < root.began < call.began < call.ended <= root.ended < time.time_ns()
    assert (root.failed, call.failed, root.service) == (False, False, "aibridge")
    assert 0 < root.attributes.pop("aibridge.time_to_first_byte") < (root.ended - root.began) / 1e9
    assert root.attributes == {
        "aibridge.interception.id": id,
        "aibridge.actor": "local",
        "aibridge.provider": "anthropic",
        "aibridge.provider.name": "anthropic",
        "aibridge.model": "claude-sonnet-4-5",
        "aibridge.client": "Claude Code",
        "aibridge.streaming": True,
        "aibridge.credential.kind": "centralized",
        "aibridge.credential.hint": "sk-a...6789",
        "aibridge.wire_exact": True,
        "aibridge.tokens.input": 3,
        "aibridge.tokens.output": 7,
        "aibridge.tokens.cache_read": 0,
        "aibridge.tokens.cache_write": 0,
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/v1/messages",
        "user_agent.original": "claude-cli/2.1",
    }
    assert call.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "claude-sonnet-4-5",
        "gen_ai.request.stream": True,
        "gen_ai.response.id": "msg_1",
        "gen_ai.response.model": "claude-sonnet-4-5",
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 7,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "gen_ai.usage.cache_creation.input_tokens": 0,
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "server.address": "127.0.0.1",
        "server.port": upstream.port,
    }


def test_cached_tokens_count_as_input_tokens(
    make_app: MakeApp, upstream: Upstream, collector: Collector
) -> None:
    app = make_app(tracing=collector.settings)
    upstream.enqueue(http_response(200, BLOCKING_RESPONSE))
    post_in_process(app)
    root, call = collector.spans(2)
    names = ("input_tokens", "output_tokens", "cache_read.input_tokens", "cache_creation.input_tokens")
    assert [call.attributes[f"gen_ai.usage.{name}"] for name in names] == [113, 5, 10, 100]
    kinds = ("input", "output", "cache_read", "cache_write")
    assert [root.attributes[f"aibridge.tokens.{kind}"] for kind in kinds] == [3, 5, 10, 100]


def test_each_attempt_is_a_span_of_its_own(
    make_app: MakeApp, upstream: Upstream, collector: Collector
) -> None:
    (provider, *_) = providers(upstream.url)
    keys = [{"value": "sk-ant-first-0123456789"}, {"value": "sk-oth-later-0123456780"}]
    app = make_app(tracing=collector.settings, providers=[{**provider, "keys": keys, "max_retries": 1}])
    upstream.enqueue(http_response(429, b"{}"))
    upstream.enqueue(http_response(503, b"{}", "Retry-After: 0"))
    upstream.enqueue(http_response(200, BLOCKING_RESPONSE))
    post_in_process(app)
    root, *calls = collector.spans(4)
    assert [(span.name, span.parent) for span in calls] == [(UPSTREAM_SPAN, root.id)] * 3
    assert [span.attributes["http.response.status_code"] for span in calls] == [429, 503, 200]
    assert [(span.failed, span.attributes.get("error.type")) for span in calls] == [
        (True, "429"),
        (True, "503"),
        (False, None),
    ]
    assert ["gen_ai.usage.input_tokens" in span.attributes for span in calls] == [False, False, True]
    assert all(earlier.ended <= later.began for earlier, later in itertools.pairwise(calls))
    assert root.attributes["aibridge.credential.hint"] == "sk-o...6780"
    assert (root.failed, root.parent) == (False, "")
    for received in collector.wire.requests:
        assert b"first-0" not in received.body
        assert b"later-0" not in received.body


@pytest.mark.parametrize(
    ("steps", "call_error", "root_error", "status"),
    [
        ((b"junk\r\n\r\n", CLOSE), "server_error", "server_error", 502),
        ((http_response(529, b'{"type":"error","error":{"type":"overloaded_error"}}'),), "529", "overloaded", 529),
        ((stream_head(), chunk(START), CLOSE), "server_error", "server_error", 200),
    ],
    ids=["junk", "refused", "cut"],
)  # fmt: skip
def test_failures_mark_their_spans(
    start: Start, upstream: Upstream, collector: Collector,
    steps: tuple[object, ...], call_error: str, root_error: str, status: int,
) -> None:  # fmt: skip
    server = start(tracing=collector.settings)
    upstream.enqueue(*steps)
    client = server.connect()
    client.send("POST", MESSAGES, ASK)
    _, headers = client.head()
    client.body(headers)
    root, call = collector.spans(2)
    assert (call.failed, call.attributes["error.type"]) == (True, call_error)
    assert (root.failed, root.attributes["error.type"]) == (True, root_error)
    assert root.attributes["http.response.status_code"] == status


def test_client_disconnect_ends_both_spans(start: Start, upstream: Upstream, collector: Collector) -> None:
    server = start(tracing=collector.settings)
    upstream.enqueue(stream_head(), chunk(START), WAIT_FOR_CLOSE)
    client = server.connect()
    client.send("POST", MESSAGES, ASK)
    client.head()
    client.chunk()
    client.close()
    assert [span.attributes["error.type"] for span in collector.spans(2)] == ["client_closed"] * 2


def test_a_request_that_is_not_sent_has_no_upstream_span(
    make_app: MakeApp, upstream: Upstream, collector: Collector
) -> None:
    (provider, *_) = providers(upstream.url)
    keys = [{"value": f"sk-ant-{letter}-0123456789"} for letter in "ab"]
    app = make_app(tracing=collector.settings, providers=[{**provider, "keys": keys}])
    upstream.handler = lambda received: [http_response(429, b"{}", "Retry-After: 60")]
    post_in_process(app)
    post_in_process(app, traceparent=TRACEPARENT)
    post_in_process(app, b"[", traceparent=TRACEPARENT)  # refused: no interception
    *_, last = collector.spans(4)
    assert (last.name, last.parent, last.trace) == ("Intercept", PARENT_SPAN, TRACE_ID)
    assert (last.attributes["error.type"], last.attributes["http.response.status_code"]) == (
        "rate_limited",
        429,
    )


def test_a_passthrough_request_is_one_span(
    make_app: MakeApp, upstream: Upstream, collector: Collector
) -> None:
    app = make_app(tracing=collector.settings)
    upstream.enqueue(*event_stream(b"data: 1\n\n"))
    post_in_process(app, b"", "/anthropic/v1/models/secret?x=y", "GET", traceparent=TRACEPARENT)
    upstream.enqueue(http_response(404, b"{}"))
    post_in_process(app, b"", "/anthropic/v1/models", "GET")
    upstream.enqueue(b"junk\r\n\r\n", CLOSE)
    post_in_process(app, b"", "/anthropic/v1/models", "GET")
    spans = collector.spans(3)
    assert {(span.name, span.kind) for span in spans} == {("Passthrough", "SERVER")}
    assert [span.parent for span in spans] == [PARENT_SPAN, "", ""]
    assert [span.attributes.get("error.type") for span in spans] == [None, "404", "502"]
    assert [span.attributes["http.response.status_code"] for span in spans] == [200, 404, 502]
    facts = spans[0].attributes
    assert len(facts.pop("aibridge.interception.id")) == 36
    assert facts == {
        "aibridge.actor": "local",
        "aibridge.provider.name": "anthropic",
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "/v1/models/*",
    }


@pytest.mark.parametrize("path", [MESSAGES, "/anthropic/v1/messages/count_tokens"])
@pytest.mark.parametrize(
    ("client_headers", "trace", "state"),
    [({"traceparent": TRACEPARENT, "tracestate": "a=1"}, TRACE_ID, "a=1"), ({"traceparent": "00-junk", "tracestate": "a=1"}, "", None), ({}, "", None)],
    ids=["continued", "junk", "new"],
)  # fmt: skip
def test_the_trace_context_is_propagated_upstream(
    make_app: MakeApp, upstream: Upstream, collector: Collector,
    path: str, client_headers: dict[str, str], trace: str, state: str | None,
) -> None:  # fmt: skip
    app = make_app(tracing={**collector.settings, "propagate": True})
    upstream.enqueue(http_response(200, BLOCKING_RESPONSE))
    post_in_process(app, path=path, **client_headers)
    spans = collector.spans(2 if path == MESSAGES else 1)
    (received,) = upstream.requests
    assert received.header("traceparent")[:-1] == f"00-{spans[-1].trace}-{spans[-1].id}-0"
    assert received.header("tracestate") == state
    assert trace in ("", spans[0].trace)


def test_without_propagation_the_clients_own_headers_pass(
    make_app: MakeApp, upstream: Upstream, collector: Collector
) -> None:
    app = make_app(tracing=collector.settings)
    upstream.enqueue(http_response(200, BLOCKING_RESPONSE))
    upstream.enqueue(http_response(200, BLOCKING_RESPONSE))
    post_in_process(app, traceparent=TRACEPARENT, tracestate="a=1")
    post_in_process(app)
    first, second = upstream.requests
    assert [first.header("traceparent"), first.header("tracestate")] == [TRACEPARENT, "a=1"]
    assert "traceparent" not in second.names()


@pytest.mark.parametrize("enabled", [True, False])
def test_prompts_are_exported_only_if_enabled(
    make_app: MakeApp, upstream: Upstream, collector: Collector, enabled: bool
) -> None:
    app = make_app(tracing={**collector.settings, "prompts": enabled})
    prompt = "a secret plan \ud800 \0 ü" + "x" * 20_000
    upstream.enqueue(http_response(200, BLOCKING_RESPONSE))
    post_in_process(
        app, json.dumps({"model": "m\ud800", "messages": [{"role": "user", "content": prompt}]}).encode()
    )
    root, call = collector.spans(2)
    assert call.attributes["gen_ai.request.model"] == root.attributes["aibridge.model"] == "m?"
    assert any(b"secret plan" in received.body for received in collector.wire.requests) == enabled
    if enabled:
        (message,) = json.loads(call.attributes["gen_ai.input.messages"])
        assert message["role"] == "user"
        (part,) = message["parts"]
        assert part["type"] == "text"
        assert part["content"].startswith("a secret plan ? \ufffd üxx")
        assert len(part["content"]) == 8192


def test_each_turn_and_each_tool_call_is_a_span(
    start: Start, upstream: Upstream, docs: ScriptedMcp, collector: Collector
) -> None:
    server = start(tracing=collector.settings, mcp_servers=[{"name": "docs", "url": docs.url}])
    server.wait_ready("/readyz")
    tool_call = claude.message("msg_1", claude.use("toolu_1", "bmcp_docs_add", a=1), stop="tool_use")
    for message in (tool_call, claude.message("msg_2", claude.text("3"), input_tokens=20)):
        upstream.enqueue(*claude.steps(message, True))
    ask(server, ASK)
    root, first, tool, second = collector.spans(4)
    assert [span.name for span in (root, first, tool, second)] == [
        "Intercept",
        UPSTREAM_SPAN,
        TOOL_SPAN,
        UPSTREAM_SPAN,
    ]
    assert {span.parent for span in (first, tool, second)} == {root.id}
    assert first.ended <= tool.began <= tool.ended <= second.began <= second.ended <= root.ended
    assert (tool.attributes["gen_ai.tool.name"], tool.attributes["aibridge.tool.server"]) == ("add", "docs")
    assert [span.attributes["gen_ai.response.id"] for span in (first, second)] == ["msg_1", "msg_2"]
    assert [span.attributes["gen_ai.usage.input_tokens"] for span in (first, second)] == [10, 20]


def test_a_tool_call_is_a_child_of_its_interception(collector: Collector) -> None:
    hooks, now = Hooks(), time.time_ns()
    tracer = Tracer(hooks, TracingSettings(collector.wire.url, prompts=False, propagate=False))
    started = Started("id-1", "ann", datetime.now(UTC))
    hooks.emit(RequestArrived("id-1", "", ""))
    hooks.emit(InterceptionStarted(started))
    for error in ("", "timeout"):
        hooks.emit(ToolCalled("id-1", "http://mcp.test", "look", "call_1", now, now + 5, error))
    hooks.emit(ToolCalled("id-2", "http://mcp.test", "look", "call_1", now, now + 5))
    hooks.emit(InterceptionEnded(started, Ended("id-1", datetime.now(UTC), 200)))
    tracer.close()
    spans = collector.spans(3)
    root = next(span for span in spans if span.name == "Intercept")
    tools = [span for span in spans if span.name == "Intercept.ProcessRequest.ToolCall"]
    assert [(span.parent, span.began, span.ended) for span in tools] == [(root.id, now, now + 5)] * 2
    assert sorted(span.attributes.get("error.type", "") for span in tools) == ["", "timeout"]
    assert tools[0].attributes.items() >= {
        ("gen_ai.operation.name", "execute_tool"),
        ("gen_ai.tool.name", "look"),
        ("gen_ai.tool.call.id", "call_1"),
        ("aibridge.tool.server", "http://mcp.test"),
    }


def test_a_hosts_own_tracing_is_unchanged(
    make_app: MakeApp, upstream: Upstream, collector: Collector
) -> None:
    before = trace.get_tracer_provider()
    app = make_app(tracing=collector.settings)
    upstream.enqueue(http_response(200, BLOCKING_RESPONSE))
    with trace.use_span(trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=False))):
        app.test_client().post(PREFIX + MESSAGES, data=ASK_BLOCKING, buffered=True)
    app.extensions["aibridge"].close(app)
    root, _ = collector.spans(2)
    assert root.parent == ""
    assert trace.get_tracer_provider() is before


def test_every_worker_exports_and_no_span_is_lost_at_shutdown(
    start: Start, upstream: Upstream, collector: Collector
) -> None:
    server = start("--workers=2", tracing=collector.settings, environ={"OTEL_SERVICE_NAME": "mine"})
    upstream.handler = lambda received: [http_response(200, BLOCKING_RESPONSE)]
    for _ in range(30):
        ask(server)
    server.stop_cleanly()
    assert {span.service for span in collector.spans(60)} == {"mine"}


def test_an_unavailable_collector_does_no_harm(
    start: Start, upstream: Upstream, collector: Collector
) -> None:
    collector.wire.handler = lambda received: [http_response(400, b"no")]
    server = start(tracing=collector.settings)
    upstream.handler = lambda received: [http_response(200, BLOCKING_RESPONSE)]
    for count in range(1, 4):
        assert ask(server)
        collector.wire.wait_for_requests(count)
    warning = f"traces cannot be sent to {collector.wire.url}/v1/traces and are dropped"
    wait_until(lambda: warning in server.log.read_text())
    collector.wire.requests.clear()
    collector.wire.handler = lambda received: [http_response(200, b"")]
    ask(server)
    collector.spans(2)
    log = server.stop()
    assert log.count("traces cannot") == 1
    assert "Failed to export" not in log
    check_log(log)


@pytest.mark.parametrize("silent", [True, False])
def test_a_silent_collector_delays_no_request(
    start: Start, upstream: Upstream, collector: Collector, silent: bool
) -> None:
    collector.wire.handler = lambda received: [WAIT_FOR_CLOSE]
    endpoint = collector.wire.url if silent else f"http://127.0.0.1:{free_port()}"
    server = start(tracing={"endpoint": endpoint})
    upstream.handler = lambda received: [http_response(200, BLOCKING_RESPONSE)]
    assert all(ask(server) for _ in range(20))
    server.stop_cleanly()


def test_without_tracing_the_library_is_not_loaded(tmp_path: Path) -> None:
    code = (
        "import sys; from aibridge_flask import create_app; create_app({'database_url': 'sqlite:///r.db'});"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environ)


@pytest.mark.parametrize(
    "module", ["opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http", "opentelemetry.exporter.otlp"]
)
def test_a_missing_package_stops_the_start(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    tree = {"tracing": {"endpoint": "http://127.0.0.1:4318"}}
    assert config.load(tree).tracing.endpoint == "http://127.0.0.1:4318"
    monkeypatch.setitem(sys.modules, module, None)
    for name in [name for name in sys.modules if name.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigError) as caught:
        config.load(tree)
    message = "tracing.endpoint: OpenTelemetry is needed: pip install 'aibridge-flask[tracing]'"
    assert caught.value.message == message
    config.load({"tracing": {"prompts": True}})
