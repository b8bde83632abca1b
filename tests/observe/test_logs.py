"""The log: a line for each request, and the records for a SIEM."""

from __future__ import annotations

import contextlib
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeApp, Start
from tests.support.server import PREFIX, TIMEOUT_SECONDS, Server, wait_until
from tests.support.upstream import CLOSE, Upstream, event_stream, http_response

MESSAGES = "/anthropic/v1/messages"
BLOCKING_RESPONSE = b'{"id":"msg_1","model":"claude-x","content":[{"type":"tool_use","id":"t1","name":"Read","input":{}},{"type":"thinking","thinking":"hm"}],"usage":{"input_tokens":3,"output_tokens":5}}'
ASK = b'{"model":"claude-x","messages":[{"role":"user","content":"a secret plan"}]}'
EVENTS = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_2","model":"claude-x","usage":{"input_tokens":7}}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)
MODEL_WITH_LINE_BREAKS = 'cl"aude\n[2026] [INFO] refused\u2028x'


def ask(server: Server, path: str = MESSAGES, body: bytes = ASK, method: str = "POST", **headers: str) -> str:
    """Sends a request; returns the interception's id, empty if there is none."""
    client = server.connect()
    client.send(method, path, body, **headers)
    _, response_headers = client.head()
    client.body(response_headers)
    client.close()
    return response_headers.get("x-aibridge-interception-id", "")


def request_lines(server: Server, count: int) -> list[dict[str, Any]]:
    """Waits for `count` JSON lines about requests in the log; returns all."""

    def read_lines() -> list[dict[str, Any]]:
        texts = server.log.read_text().splitlines()
        records = [json.loads(text) for text in texts if text.startswith("{")]
        return [line for line in records if line.get("logger") == "aibridge.requests"]

    wait_until(lambda: len(read_lines()) >= count)
    return read_lines()


@pytest.fixture
def logging_server(start: Start, upstream: Upstream) -> Server:
    return start(logs={"format": "json", "records": True})


def test_each_request_is_one_json_line(logging_server: Server, upstream: Upstream) -> None:
    upstream.enqueue(http_response(200, BLOCKING_RESPONSE))
    first = ask(logging_server, User_Agent="claude-cli/2.1")
    upstream.enqueue(*event_stream(EVENTS))
    second = ask(logging_server, body=ASK[:-1] + b',"stream":true}')
    upstream.enqueue(b"junk\r\n\r\n", CLOSE)
    third = ask(logging_server)
    fourth = ask(logging_server, body=b"[")
    upstream.enqueue(http_response(200, b"{}"))
    ask(logging_server, "/anthropic/v1/models/m", b"", "GET")
    ask(logging_server, "/anthropic/v1/files", b"", "GET")
    logged = request_lines(logging_server, 6)
    common = {"event": "interception", "actor": "local", "provider": "anthropic", "route": "/v1/messages"}
    bridged = {**common, "model": "claude-x"}
    for line, expected in zip(
        logged,
        [
            {**bridged, "id": first, "client": "Claude Code", "stream": False, "status": 200, "input_tokens": 3, "output_tokens": 5},
            {**bridged, "id": second, "client": "Unknown", "stream": True, "status": 200, "input_tokens": 7},
            {**bridged, "id": third, "status": 502, "error": "server_error", "first_byte_ms": 0},
            {"event": "refused", "id": fourth, "status": 400, "error": "invalid_json", "path": "/v1/messages", "method": "POST"},
            {"event": "passthrough", "actor": "local", "provider": "anthropic", "route": "/v1/models/*", "method": "GET", "status": 200},
            {"event": "refused", "status": 404, "error": "route_not_supported", "path": "/v1/files"},
        ],
        strict=True,
    ):  # fmt: skip
        assert line.items() >= expected.items()
        assert (line["level"], line["time"][-1]) == ("info", "Z")
    for line in logged[:2]:
        assert line["ms"] >= line["first_byte_ms"] * 0.5 > 0
        assert line["first_byte_ms"] >= line["overhead_ms"] > 0


def test_records_are_logged_as_json_lines(logging_server: Server, upstream: Upstream) -> None:
    upstream.enqueue(http_response(200, BLOCKING_RESPONSE))
    id = ask(logging_server)
    request_lines(logging_server, 1)
    texts = [text for text in logging_server.log.read_text().splitlines() if text.startswith('{"event"')]
    records = {line["event"]: line for line in map(json.loads, texts)}
    assert list(records) == [
        "interception_start", "prompt_usage", "token_usage", "tool_usage", "model_thought", "interception_end",
    ]  # fmt: skip
    assert {line.get("interception_id", line.get("id")) for line in records.values()} == {id}
    assert records["interception_start"]["credential_hint"] == "sk-a...6789"
    assert records["prompt_usage"]["prompt"] == "a secret plan"
    assert records["token_usage"]["usage"]["output_tokens"] == 5
    assert records["tool_usage"]["tool"] == "Read"
    assert records["model_thought"]["content"] == "hm"
    assert (records["interception_end"]["status_code"], records["interception_end"]["error_type"]) == (
        200,
        "",
    )


def test_fields_that_are_not_recorded_are_not_logged(start: Start, upstream: Upstream) -> None:
    server = start(
        logs={"records": True}, records={"prompts": False, "tool_inputs": False, "thoughts": False}
    )
    upstream.enqueue(http_response(200, BLOCKING_RESPONSE))
    ask(server)
    wait_until(lambda: "interception_end" in server.log.read_text())
    log = server.log.read_text()
    assert "secret plan" not in log
    assert "hm" not in [json.loads(text).get("content") for text in log.splitlines() if text.startswith("{")]


@pytest.mark.parametrize("format", ["plain", "json"])
def test_a_request_is_logged_on_one_line(start: Start, upstream: Upstream, format: str) -> None:
    server = start(logs={"format": format})
    upstream.enqueue(http_response(200, b"{}"))
    before = len(server.log.read_text().splitlines())
    ask(server, body=json.dumps({"model": MODEL_WITH_LINE_BREAKS}).encode())
    ask(server, "/anthropic/%0a[2026]%20[INFO]%20fake", b"", "GET")
    wait_until(lambda: len(server.log.read_text().split("\n")) - 1 >= before + 2)
    logged = server.log.read_text().splitlines()[before:]
    assert len(logged) == 2
    if format == "json":
        assert [json.loads(line)["event"] for line in logged] == ["interception", "refused"]
        assert json.loads(logged[0])["model"] == MODEL_WITH_LINE_BREAKS
    else:
        assert " interception id=" in logged[0]
        assert f"model={json.dumps(MODEL_WITH_LINE_BREAKS)}" in logged[0]
        assert " refused id=" in logged[1]


def test_a_higher_level_logs_no_requests(start: Start, upstream: Upstream) -> None:
    server = start(logs={"level": "warning"})
    upstream.enqueue(http_response(200, b"{}"))
    ask(server)
    ask(server, "/anthropic/v1/files", b"", "GET")
    assert "interception" not in server.log.read_text()


def test_a_hosts_own_logging_is_left_alone(
    make_app: MakeApp, upstream: Upstream, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO, "aibridge")
    upstream.enqueue(http_response(200, b"{}"))
    make_app().test_client().post(PREFIX + MESSAGES, data=ASK, buffered=True)
    (record,) = [record for record in caplog.records if record.name == "aibridge.requests"]
    assert record.getMessage().startswith("interception id=")
    assert record.fields["model"] == "claude-x"
    assert logging.getLogger("aibridge").handlers == []


def test_the_first_byte_never_comes_after_the_end(
    make_app: MakeApp, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "aibridge.requests")
    client = make_app().test_client()
    streamed = ASK[:-1] + b',"stream":true}'
    whole, cut = event_stream(EVENTS), [*event_stream(EVENTS)[:1], CLOSE]
    exchanges = [
        (ASK, [http_response(200, BLOCKING_RESPONSE)]),
        (ASK, [http_response(200, b"")]),
        (ASK, [http_response(500, b"{}")]),
        (ASK, [b"junk\r\n\r\n", CLOSE]),
        (streamed, whole),
        (streamed, cut),
    ]
    for body, steps in exchanges:
        upstream.enqueue(*steps)
        with contextlib.suppress(OSError):  # what a server is given for a response that broke off
            client.post(PREFIX + MESSAGES, data=body, buffered=True)
    lines = [record.fields for record in caplog.records]
    assert [line["event"] for line in lines] == ["interception"] * len(exchanges)
    assert all(0 <= line["first_byte_ms"] <= line["ms"] for line in lines)
    assert lines[0]["first_byte_ms"] > 0


VERBOSE = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"all": {"class": "logging.StreamHandler"}},
    "root": {"level": "DEBUG", "handlers": ["all"]},
    "loggers": {"sqlalchemy": {"level": "DEBUG"}},
}


def test_threads_that_log_beside_requests_hold_nobody_up(tmp_path: Path, upstream: Upstream) -> None:
    """The database's lines come from several threads, while requests log theirs."""
    (tmp_path / "logging.json").write_text(json.dumps(VERBOSE))
    providers = [{"type": "anthropic", "base_url": upstream.url, "keys": [{"value": "k"}]}]
    server = Server(
        tmp_path,
        {"providers": providers},
        "--log-config-json",
        str(tmp_path / "logging.json"),
        is_forked=True,
    ).wait_ready()
    with ThreadPoolExecutor(1) as pool:
        for _ in range(15):
            listing = pool.submit(server.get, "/interceptions?limit=100")
            upstream.enqueue(http_response(200, BLOCKING_RESPONSE))
            server.record(ask(server))
            listing.result(TIMEOUT_SECONDS)
    server.stop()
