"""What an operator reads in the log: a line for each request, and the records for a SIEM."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeApp, Start
from tests.support.server import PREFIX, Server, wait_until
from tests.support.upstream import CLOSE, Upstream, event_stream, http_response

MESSAGES = "/anthropic/v1/messages"
WHOLE = b'{"id":"msg_1","model":"claude-x","content":[{"type":"tool_use","id":"t1","name":"Read","input":{}},{"type":"thinking","thinking":"hm"}],"usage":{"input_tokens":3,"output_tokens":5}}'
ASK = b'{"model":"claude-x","messages":[{"role":"user","content":"a secret plan"}]}'
EVENTS = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_2","model":"claude-x","usage":{"input_tokens":7}}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)
ODD = 'cl"aude\n[2026] [INFO] refused\u2028x'


def ask(server: Server, path: str = MESSAGES, body: bytes = ASK, method: str = "POST", **headers: str) -> str:
    """The interception's id, if there is one."""
    client = server.connect()
    client.send(method, path, body, **headers)
    _, found = client.head()
    client.body(found)
    client.close()
    return found.get("x-aibridge-interception-id", "")


def lines(server: Server, count: int) -> list[dict[str, Any]]:
    """The log's JSON lines that tell of requests, once there are so many."""

    def found() -> list[dict[str, Any]]:
        texts = server.log.read_text().splitlines()
        told = [json.loads(text) for text in texts if text.startswith("{")]
        return [line for line in told if line.get("logger") == "aibridge.requests"]

    wait_until(lambda: len(found()) >= count)
    return found()


@pytest.fixture
def talking(start: Start, upstream: Upstream) -> Server:
    return start(logs={"format": "json", "records": True})


def test_each_request_is_one_json_line(talking: Server, upstream: Upstream) -> None:
    upstream.enqueue(http_response(200, WHOLE))
    first = ask(talking, User_Agent="claude-cli/2.1")
    upstream.enqueue(*event_stream(EVENTS))
    second = ask(talking, body=ASK[:-1] + b',"stream":true}')
    upstream.enqueue(b"junk\r\n\r\n", CLOSE)
    third = ask(talking)
    fourth = ask(talking, body=b"[")
    upstream.enqueue(http_response(200, b"{}"))
    ask(talking, "/anthropic/v1/models/m", b"", "GET")
    ask(talking, "/anthropic/v1/files", b"", "GET")
    told = lines(talking, 6)
    shared = {"event": "interception", "actor": "local", "provider": "anthropic", "route": "/v1/messages"}
    asked = {**shared, "model": "claude-x"}
    for line, wanted in zip(
        told,
        [
            {**asked, "id": first, "client": "Claude Code", "stream": False, "status": 200, "input_tokens": 3, "output_tokens": 5},
            {**asked, "id": second, "client": "Unknown", "stream": True, "status": 200, "input_tokens": 7},
            {**asked, "id": third, "status": 502, "error": "server_error", "first_byte_ms": 0},
            {"event": "refused", "id": fourth, "status": 400, "error": "invalid_json", "path": "/v1/messages", "method": "POST"},
            {"event": "passthrough", "actor": "local", "provider": "anthropic", "route": "/v1/models/*", "method": "GET", "status": 200},
            {"event": "refused", "status": 404, "error": "route_not_supported", "path": "/v1/files"},
        ],
        strict=True,
    ):  # fmt: skip
        assert line.items() >= wanted.items()
        assert (line["level"], line["time"][-1]) == ("info", "Z")
    for line in told[:2]:
        assert line["ms"] >= line["first_byte_ms"] * 0.5 > 0
        assert line["first_byte_ms"] >= line["overhead_ms"] > 0


def test_the_records_are_lines_for_a_siem(talking: Server, upstream: Upstream) -> None:
    upstream.enqueue(http_response(200, WHOLE))
    id = ask(talking)
    lines(talking, 1)
    texts = [text for text in talking.log.read_text().splitlines() if text.startswith('{"event"')]
    told = {line["event"]: line for line in map(json.loads, texts)}
    assert list(told) == [
        "interception_start", "prompt_usage", "token_usage", "tool_usage", "model_thought", "interception_end",
    ]  # fmt: skip
    assert {line.get("interception_id", line.get("id")) for line in told.values()} == {id}
    assert told["interception_start"]["credential_hint"] == "sk-a...6789"
    assert told["prompt_usage"]["prompt"] == "a secret plan"
    assert told["token_usage"]["usage"]["output_tokens"] == 5
    assert told["tool_usage"]["tool"] == "Read"
    assert told["model_thought"]["content"] == "hm"
    assert (told["interception_end"]["status_code"], told["interception_end"]["error_type"]) == (200, "")


def test_what_is_not_recorded_is_not_told(start: Start, upstream: Upstream) -> None:
    server = start(
        logs={"records": True}, records={"prompts": False, "tool_inputs": False, "thoughts": False}
    )
    upstream.enqueue(http_response(200, WHOLE))
    ask(server)
    wait_until(lambda: "interception_end" in server.log.read_text())
    log = server.log.read_text()
    assert "secret plan" not in log
    assert "hm" not in [json.loads(text).get("content") for text in log.splitlines() if text.startswith("{")]


@pytest.mark.parametrize("format", ["plain", "json"])
def test_a_line_stays_one_line(start: Start, upstream: Upstream, format: str) -> None:
    server = start(logs={"format": format})
    upstream.enqueue(http_response(200, b"{}"))
    before = len(server.log.read_text().splitlines())
    ask(server, body=json.dumps({"model": ODD}).encode())
    ask(server, "/anthropic/%0a[2026]%20[INFO]%20fake", b"", "GET")
    wait_until(lambda: len(server.log.read_text().split("\n")) - 1 >= before + 2)
    told = server.log.read_text().splitlines()[before:]
    assert len(told) == 2
    if format == "json":
        assert [json.loads(line)["event"] for line in told] == ["interception", "refused"]
        assert json.loads(told[0])["model"] == ODD
    else:
        assert " interception id=" in told[0]
        assert f"model={json.dumps(ODD)}" in told[0]
        assert " refused id=" in told[1]


def test_a_higher_level_tells_less(start: Start, upstream: Upstream) -> None:
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
    (record,) = [one for one in caplog.records if one.name == "aibridge.requests"]
    assert record.getMessage().startswith("interception id=")
    assert record.fields["model"] == "claude-x"
    assert logging.getLogger("aibridge").handlers == []
