"""Bytes pass as they come; pings fill silence; disconnects of either side are noticed."""

from __future__ import annotations

import json
import re
import socket
import threading
import time

import pytest

from tests.support.dialogue import ASK, ASK_BLOCKING, ASK_CHAT, BLOCK, CHAT, DELTA, END, MESSAGES, PING, START
from tests.support.server import Server
from tests.support.upstream import (
    CLOSE,
    LAST_CHUNK,
    RESET,
    WAIT_FOR_CLOSE,
    Upstream,
    chunk,
    event_stream,
    head,
    http_response,
    stream_head,
)


def test_head_comes_before_the_body(server: Server, upstream: Upstream) -> None:
    go = threading.Event()
    upstream.enqueue(stream_head("request-id: req_7"), go, chunk(START + BLOCK + DELTA + END), LAST_CHUNK)
    client = server.connect()
    client.send("POST", MESSAGES, ASK)
    status, headers = client.head()
    go.set()
    assert status == 200
    assert headers["request-id"] == "req_7"
    assert headers["x-accel-buffering"] == "no"
    assert client.chunks() == (START + BLOCK + DELTA + END, True)


def test_each_event_comes_at_once(server: Server, upstream: Upstream) -> None:
    """The upstream writes the next event only when the client has read the one before."""
    gates = [threading.Event() for _ in range(5)]
    steps: list[object] = [stream_head()]
    for gate, event in zip(gates, (START, BLOCK, DELTA, DELTA, END), strict=True):
        steps += [gate, chunk(event)]
    upstream.enqueue(*steps, LAST_CHUNK)
    client = server.connect()
    client.send("POST", MESSAGES, ASK)
    client.head()
    for gate, event in zip(gates, (START, BLOCK, DELTA, DELTA, END), strict=True):
        gate.set()
        assert client.chunk() == event
    assert client.chunk() == b""


@pytest.mark.parametrize(
    ("route", "body", "ping"), [(MESSAGES, ASK, PING), (CHAT, ASK_CHAT, b": keep-alive\n\n")]
)
def test_a_silent_stream_gets_pings_between_events(
    server: Server, upstream: Upstream, route: str, body: bytes, ping: bytes
) -> None:
    go, finish = threading.Event(), threading.Event()
    event = b'data: {"id":"x","choices":[]}\n\n'
    upstream.enqueue(stream_head(), go, chunk(event), finish, chunk(b"data: [DONE]\n\n"), LAST_CHUNK)
    client = server.connect()
    client.send("POST", route, body)
    _, headers = client.head()
    assert client.chunk() == ping
    go.set()
    assert client.chunk() == event
    assert client.chunk() == ping
    finish.set()
    rest, whole = client.chunks()
    assert rest.removeprefix(ping) == b"data: [DONE]\n\n"
    assert whole
    record = server.record(headers["x-aibridge-interception-id"])
    assert not record["wire_exact"]


def test_no_ping_is_sent_inside_an_event(server: Server, upstream: Upstream) -> None:
    middle = threading.Event()
    upstream.enqueue(stream_head(), chunk(START[:40]), middle, chunk(START[40:] + END), LAST_CHUNK)
    client = server.connect()
    client.send("POST", MESSAGES, ASK)
    client.head()
    assert client.chunk() == START[:40]
    client.sock.settimeout(0.6)  # longer than two intervals
    with pytest.raises(TimeoutError):
        client.sock.recv(1, socket.MSG_PEEK)
    middle.set()
    client.sock.settimeout(20)
    assert client.chunk() == START[40:] + END


def test_a_silent_json_answer_gets_no_ping(server: Server, upstream: Upstream) -> None:
    go = threading.Event()
    upstream.enqueue(head(200, "Content-Length: 2"), b"{", go, b"}")
    client = server.connect()
    client.send("POST", MESSAGES, ASK_BLOCKING)
    client.head()
    assert client.stream.read(1) == b"{"
    client.sock.settimeout(0.6)
    with pytest.raises(TimeoutError):
        client.sock.recv(1, socket.MSG_PEEK)
    client.sock.settimeout(20)
    go.set()
    assert client.stream.read(1) == b"}"


def disconnect(client: object) -> float:
    """Closes the connection; returns the time of the monotonic clock."""
    client.close()
    return time.monotonic()


@pytest.mark.parametrize("steps", [(), (stream_head(),), (stream_head(), chunk(START + BLOCK + DELTA))])
def test_client_disconnect_closes_the_upstream(
    server: Server, upstream: Upstream, steps: tuple[bytes, ...]
) -> None:
    """Before the head, after it, and while events flow; the upstream stays silent."""
    upstream.enqueue(*steps, WAIT_FOR_CLOSE)
    client = server.connect()
    client.send("POST", MESSAGES, ASK)
    upstream.wait_for_requests(1)
    id = ""
    if steps:
        id = client.head()[1]["x-aibridge-interception-id"]
    if len(steps) > 1:
        client.chunk()
    disconnected_at = disconnect(client)
    assert upstream.peer_closed.wait(10)
    assert time.monotonic() - disconnected_at < 1
    record = server.record(id or server.newest()["id"])
    assert record["error_type"] == "client_closed"
    if len(steps) > 1:
        assert record["token_usages"][0]["input_tokens"] == 3


def test_client_disconnect_after_stray_bytes_closes_the_upstream(server: Server, upstream: Upstream) -> None:
    upstream.enqueue(WAIT_FOR_CLOSE)
    client = server.connect()
    client.send("POST", MESSAGES, ASK_BLOCKING)
    client.sock.sendall(b"\r\n")
    upstream.wait_for_requests(1)
    disconnected_at = disconnect(client)
    assert upstream.peer_closed.wait(10)
    assert time.monotonic() - disconnected_at < 2


def test_client_disconnect_after_the_last_event_is_no_error(server: Server, upstream: Upstream) -> None:
    upstream.enqueue(stream_head(), chunk(START + END), WAIT_FOR_CLOSE)
    client = server.connect()
    client.send("POST", MESSAGES, ASK)
    _, headers = client.head()
    assert client.chunk() == START + END
    client.close()
    assert upstream.peer_closed.wait(10)
    assert server.record(headers["x-aibridge-interception-id"])["error_type"] == ""


def test_client_disconnect_before_the_head_records_no_status(server: Server, upstream: Upstream) -> None:
    upstream.enqueue(WAIT_FOR_CLOSE)
    client = server.connect()
    client.send("POST", MESSAGES, ASK)
    upstream.wait_for_requests(1)
    client.close()
    assert upstream.peer_closed.wait(10)
    record = server.record(server.newest()["id"])
    assert record["status_code"] is None


@pytest.mark.parametrize("cut", [CLOSE, RESET])
def test_a_cut_between_events_sends_an_error_event_and_stays_cut(
    server: Server, upstream: Upstream, cut: object
) -> None:
    go = threading.Event()
    upstream.enqueue(stream_head(), chunk(START + BLOCK + DELTA), go, cut)
    client = server.connect()
    client.send("POST", MESSAGES, ASK)
    _, headers = client.head()
    assert client.chunk() == START + BLOCK + DELTA
    go.set()
    event, whole = client.chunks()
    assert not whole
    assert event.startswith(b"event: error\n")
    error = json.loads(event.partition(b"data: ")[2])
    assert error["error"]["type"] == "api_error"
    record = server.record(headers["x-aibridge-interception-id"])
    assert error["request_id"] == record["id"]
    assert record["error_type"] == "server_error"
    assert record["token_usages"][0]["output_tokens"] == 1
    assert not record["wire_exact"]


def test_a_cut_inside_an_event_is_just_a_cut(server: Server, upstream: Upstream) -> None:
    go = threading.Event()
    upstream.enqueue(stream_head(), chunk(START + BLOCK[:30]), go, CLOSE)
    client = server.connect()
    client.send("POST", MESSAGES, ASK)
    client.head()
    first = client.chunk()
    go.set()
    rest, whole = client.chunks()
    assert (first + rest, whole) == (START + BLOCK[:30], False)


def test_a_cut_json_answer_stays_incomplete(server: Server, upstream: Upstream) -> None:
    upstream.enqueue(head(200, "Content-Length: 100"), b'{"id":', CLOSE)
    client = server.connect()
    client.send("POST", MESSAGES, ASK_BLOCKING)
    _, headers = client.head()
    assert client.body(headers) == (b'{"id":', False)
    assert server.record(headers["x-aibridge-interception-id"])["error_type"] == "server_error"


@pytest.mark.parametrize("path", ["/anthropic/v1/messages", "/anthropic/v1/models/m"])
@pytest.mark.parametrize("cut", [CLOSE, RESET])
def test_an_answer_cut_before_its_body_is_a_502(
    server: Server, upstream: Upstream, path: str, cut: object
) -> None:
    upstream.enqueue(head(200, "Content-Length: 9"), cut)
    client = server.connect()
    client.send("POST" if path.endswith("messages") else "GET", path, ASK_BLOCKING)
    status, headers = client.head()
    body, whole = client.body(headers)
    assert (status, whole, json.loads(body)["error"]["message"]) == (
        502,
        True,
        "the AI provider's answer broke off",
    )
    if path.endswith("messages"):
        record = server.record(headers["x-aibridge-interception-id"])
        assert (record["status_code"], record["error_type"]) == (502, "server_error")


def test_a_key_in_an_upstream_error_is_masked_in_the_record(server: Server, upstream: Upstream) -> None:
    error = b'{"error":{"message":"bad key: sk-ant-central-0123456789"}}'
    upstream.enqueue(http_response(403, error))
    client = server.connect()
    client.send("POST", "/anthropic/v1/messages", ASK_BLOCKING)
    status, headers = client.head()
    client.body(headers)
    assert status == 403
    record = server.record(headers["x-aibridge-interception-id"])
    assert record["error_message"] == "bad key: sk-a...6789"


def test_a_clean_end_without_the_last_event_passes_and_is_recorded(
    server: Server, upstream: Upstream
) -> None:
    upstream.enqueue(*event_stream(START + BLOCK + DELTA))
    client = server.connect()
    client.send("POST", MESSAGES, ASK)
    _, headers = client.head()
    assert client.chunks() == (START + BLOCK + DELTA, True)
    record = server.record(headers["x-aibridge-interception-id"])
    assert record["error_type"] == "unknown"
    assert "last event" in record["error_message"]
    assert record["wire_exact"]


def test_a_cut_after_the_last_event_updates_the_record(server: Server, upstream: Upstream) -> None:
    go = threading.Event()
    upstream.enqueue(stream_head(), chunk(START + END), go, RESET)
    client = server.connect()
    client.send("POST", MESSAGES, ASK)
    _, headers = client.head()
    assert client.chunk() == START + END
    id = headers["x-aibridge-interception-id"]
    assert server.record(id)["error_type"] == ""
    go.set()
    assert client.chunks() == (b"", False)
    deadline = time.monotonic() + 10
    while server.record(id)["error_type"] != "server_error":
        assert time.monotonic() < deadline


def test_the_record_is_written_before_the_last_event_is_sent(server: Server, upstream: Upstream) -> None:
    go = threading.Event()
    upstream.enqueue(stream_head(), chunk(START + BLOCK + DELTA + END), go, LAST_CHUNK)
    client = server.connect()
    client.send("POST", MESSAGES, ASK)
    _, headers = client.head()
    client.chunk()
    record = server.newest()
    go.set()
    assert record["id"] == headers["x-aibridge-interception-id"]
    assert record["ended_at"]
    assert record["token_usages"][0]["output_tokens"] == 7
    assert client.chunk() == b""


def test_a_connection_serves_many_requests(server: Server, upstream: Upstream) -> None:
    for _ in range(5):
        upstream.enqueue(*event_stream(START + END))
        upstream.enqueue(http_response(200, b"{}"))
    client = server.connect()
    for _ in range(5):
        client.send("POST", MESSAGES, ASK)
        assert client.body(client.head()[1]) == (START + END, True)
        client.send("POST", MESSAGES, ASK_BLOCKING)
        assert client.body(client.head()[1]) == (b"{}", True)
    assert upstream.connections == 1


def test_a_pipelined_request_is_not_taken_for_a_disconnect(server: Server, upstream: Upstream) -> None:
    go = threading.Event()
    upstream.enqueue(stream_head(), go, chunk(START + END), LAST_CHUNK)
    upstream.enqueue(http_response(200, b"{}"))
    client = server.connect()
    client.send("POST", MESSAGES, ASK)
    client.send("POST", MESSAGES, ASK_BLOCKING)
    _, headers = client.head()
    go.set()
    assert client.body(headers) == (START + END, True)
    assert client.body(client.head()[1]) == (b"{}", True)


def test_a_dead_pooled_connection_is_replaced_once(server: Server, upstream: Upstream) -> None:
    upstream.enqueue(http_response(200, b"{}"))
    client = server.connect()
    client.send("POST", MESSAGES, ASK_BLOCKING)
    assert client.body(client.head()[1]) == (b"{}", True)
    upstream.enqueue(CLOSE)  # reads the request and sends nothing
    upstream.enqueue(http_response(200, b'{"a":1}'))
    client.send("POST", MESSAGES, ASK_BLOCKING)
    assert client.body(client.head()[1]) == (b'{"a":1}', True)
    assert len(upstream.requests) == 3
    assert upstream.connections == 2


def test_a_request_on_a_new_connection_is_not_retried(server: Server, upstream: Upstream) -> None:
    upstream.enqueue(CLOSE)
    client = server.connect()
    client.send("POST", MESSAGES, ASK_BLOCKING)
    status, headers = client.head()
    assert status == 502
    assert len(upstream.requests) == 1
    body, _ = client.body(headers)
    assert json.loads(body)["error"]["type"] == "api_error"


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01 no HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n{}",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
    ],
)
def test_garbage_is_a_502(server: Server, upstream: Upstream, garbage: bytes) -> None:
    upstream.enqueue(garbage, CLOSE)
    client = server.connect()
    client.send("POST", MESSAGES, ASK_BLOCKING)
    status, headers = client.head()
    body, _ = client.body(headers)
    assert status == 502
    assert json.loads(body)["error"]["message"] == "the AI provider could not be reached"


def test_early_hints_are_skipped(server: Server, upstream: Upstream) -> None:
    upstream.enqueue(
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 P\r\n\r\n" + http_response(200, b"{}")
    )
    client = server.connect()
    client.send("POST", MESSAGES, ASK_BLOCKING)
    status, headers = client.head()
    assert (status, client.body(headers)) == (200, (b"{}", True))
    assert "link" not in headers


def test_leftovers_never_reach_the_next_answer(server: Server, upstream: Upstream) -> None:
    upstream.enqueue(http_response(200, b'{"n":1}') + http_response(200, b'{"stolen":1}'))
    upstream.enqueue(http_response(200, b'{"n":2}'))
    client = server.connect()
    for expected in (b'{"n":1}', b'{"n":2}'):
        client.send("POST", MESSAGES, ASK_BLOCKING)
        assert client.body(client.head()[1]) == (expected, True)
    assert upstream.connections == 2


def test_a_close_delimited_answer_is_complete(server: Server, upstream: Upstream) -> None:
    upstream.enqueue(head(200), b'{"a":', b"1}", CLOSE)
    client = server.connect()
    client.send("POST", MESSAGES, ASK_BLOCKING)
    _, headers = client.head()
    assert client.body(headers) == (b'{"a":1}', True)
    assert server.record(headers["x-aibridge-interception-id"])["error_type"] == ""


CUT_BODY = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","model":"claude-x","usage":{"input_tokens":4,"output_tokens":1}}}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"toolu_1","name":"Read","input":{}}}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{\\"a\\":1}"}}\n\n'
    b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{},"usage":{"output_tokens":9}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)


def test_a_stream_cut_at_any_byte_passes_up_to_there_and_is_recorded(
    server: Server, upstream: Upstream
) -> None:
    ends = [match.end() for match in re.finditer(rb"\n\n", CUT_BODY)]
    body = b'{"model":"claude-x","stream":true,"messages":[]}'
    for cut in range(1, len(CUT_BODY)):
        upstream.enqueue(stream_head(), chunk(CUT_BODY[:cut]), CLOSE)
        client = server.connect()
        client.send("POST", MESSAGES, body)
        _, headers = client.head()
        received, whole = client.chunks()
        client.close()
        assert not whole
        error_event = received[cut:]
        assert received[:cut] == CUT_BODY[:cut]
        assert error_event.startswith(b"event: error\n") is (cut in ends)
        if cut in ends or cut % 50 == 0:
            record = server.record(headers["x-aibridge-interception-id"])
            assert record["error_type"] == "server_error"
            assert record["cost_status"] in ("estimated", "unpriced")
            assert [usage["output_tokens"] for usage in record["token_usages"]] == (
                [0] if cut < ends[0] - 2 else [1] if cut < ends[4] - 2 else [9]
            )
            assert [tool_use["tool"] for tool_use in record["tool_usages"]] == (
                [] if cut < ends[1] - 2 else ["Read"]
            )
