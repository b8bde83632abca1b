"""The same dialogues on every server: gunicorn with gevent, threads and sync workers, and waitress."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.conftest import Start, providers
from tests.support.dialogue import ASK, ASK_BLOCKING, ASK_CHAT, BLOCK, CHAT, DELTA, END, MESSAGES, PING, START
from tests.support.server import COMMANDS, KEEPALIVE_SECONDS, TIMEOUT_SECONDS, Server, check_log, wait_until
from tests.support.upstream import (
    CLOSE,
    LAST_CHUNK,
    RESET,
    WAIT_FOR_CLOSE,
    Upstream,
    chunk,
    head,
    http_response,
    stream_head,
)

EXPOSES_SOCKET = ["gevent", "gthread", "sync"]
LIMIT = 4 << 20
ID = "x-aibridge-interception-id"


@pytest.fixture(scope="module")
def non_reading_upstream() -> Iterator[socket.socket]:
    """An upstream that accepts connections and does not read."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.settimeout(TIMEOUT_SECONDS)
        yield listener


@pytest.fixture(scope="module")
def unresponsive_url() -> Iterator[str]:
    """The URL of an upstream that neither accepts nor refuses connections: its backlog is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as waiting:
        for _ in range(4):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture(scope="module", params=COMMANDS)
def shared_host(
    request: pytest.FixtureRequest,
    shared_upstream: Upstream,
    non_reading_upstream: socket.socket,
    unresponsive_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    key = [{"value": "sk-ant-central-0123456789"}]
    url = f"http://127.0.0.1:{non_reading_upstream.getsockname()[1]}"
    settings = {
        "providers": [
            *providers(shared_upstream.url),
            {"type": "anthropic", "name": "deaf", "base_url": url, "keys": key},
            {"type": "anthropic", "name": "absent", "base_url": unresponsive_url, "keys": key},
        ],
        "connect_timeout": 3600.0,
        "keepalive_interval": KEEPALIVE_SECONDS,
        "max_body_bytes": LIMIT,
        "drain_delay": 0,
    }
    server = Server(tmp_path_factory.mktemp(request.param), settings, kind=request.param)
    yield server.wait_ready()
    log = server.stop()
    if request.param != "waitress":  # it logs a response that breaks off
        check_log(log)


@pytest.fixture
def host(shared_host: Server, upstream: Upstream) -> Iterator[Server]:
    """The bridge on each server, at the scripted upstream."""
    yield shared_host
    shared_host.disconnect()


def only_on(kinds: list[str]) -> pytest.MarkDecorator:
    """Runs the test on these servers only."""
    return pytest.mark.parametrize("shared_host", kinds, indirect=True)


def test_a_json_answer_passes_byte_for_byte(host: Server, upstream: Upstream) -> None:
    body = (
        b' {"model" : "m\\u00e9", "n":1e5,\n"messages":[{"role":"user","content":"hi \xf0\x9f\xa6\x8a"}]}\n'
    )
    answer = b'{"id":"msg_1",  "usage":{"input_tokens":3,"output_tokens":7e0},"\\u0041":[1.50]}\n'
    upstream.enqueue(http_response(200, answer, "request-id: req_7", "X-Twice: 1", "X-Twice: 2"))
    client = host.connect()
    client.send("POST", MESSAGES + "?beta=true", body, anthropic_beta="a,b")
    status, headers = client.head()
    assert (status, headers["request-id"]) == (200, "req_7")
    assert client.body(headers) == (answer, True)
    (received,) = upstream.requests
    assert (received.target, received.body) == ("/v1/messages?beta=true", body)
    assert received.header("anthropic-beta") == "a,b"
    record = host.record(headers[ID])
    assert (record["status_code"], record["error_type"], record["wire_exact"]) == (200, "", True)
    assert [prompt["prompt"] for prompt in record["user_prompts"]] == ["hi \U0001f98a"]
    assert [usage["input_tokens"] for usage in record["token_usages"]] == [3]


def test_each_event_comes_at_once(host: Server, upstream: Upstream) -> None:
    """The upstream writes the next event only when the client has read the one before."""
    events = (START, BLOCK, DELTA, DELTA, END)
    gates = [threading.Event() for _ in events]
    steps = [step for gate, event in zip(gates, events, strict=True) for step in (gate, chunk(event))]
    upstream.enqueue(stream_head(), *steps, LAST_CHUNK)
    client = host.connect()
    client.send("POST", MESSAGES, ASK)
    gates[0].set()  # some servers send the head with the first event
    _, headers = client.head()
    for gate, event in zip(gates, events, strict=True):
        gate.set()
        while (piece := client.chunk()) == PING:
            pass
        assert piece == event
    assert client.chunk() == b""
    record = host.record(headers[ID])
    assert record["error_type"] == ""
    assert [(usage["input_tokens"], usage["output_tokens"]) for usage in record["token_usages"]] == [(3, 7)]


@pytest.mark.parametrize(
    ("route", "body", "ping"), [(MESSAGES, ASK, PING), (CHAT, ASK_CHAT, b": keep-alive\n\n")]
)
def test_a_silent_stream_gets_pings(
    host: Server, upstream: Upstream, route: str, body: bytes, ping: bytes
) -> None:
    go = threading.Event()
    last = END if route == MESSAGES else b"data: [DONE]\n\n"
    upstream.enqueue(stream_head(), go, chunk(last), LAST_CHUNK)
    client = host.connect()
    client.send("POST", route, body)
    client.head()
    assert [client.chunk(), client.chunk()] == [ping, ping]
    go.set()
    rest, whole = client.chunks()
    assert (rest.replace(ping, b""), whole) == (last, True)


PARTIAL_ANSWERS = {
    "before the head": (),
    "inside a JSON answer": (head(200, "Content-Length: 100"), b'{"id":'),
    "inside an event": (stream_head(), chunk(START + BLOCK[:20])),
}


@only_on(EXPOSES_SOCKET)
@pytest.mark.parametrize("steps", PARTIAL_ANSWERS.values(), ids=PARTIAL_ANSWERS)
def test_client_disconnect_is_noticed_without_pings(
    host: Server, upstream: Upstream, steps: tuple[bytes, ...]
) -> None:
    upstream.enqueue(*steps, WAIT_FOR_CLOSE)
    client = host.connect()
    client.send("POST", MESSAGES, ASK)
    upstream.wait_for_requests(1)
    if steps:
        client.head()
        client.stream.read(1)
    client.close()
    assert upstream.peer_closed.wait(TIMEOUT_SECONDS)
    record = host.record(host.newest()["id"])
    assert record["error_type"] == "client_closed"
    assert record["status_code"] == (200 if steps else None)


@only_on(EXPOSES_SOCKET)
def test_client_disconnect_while_the_body_is_forwarded_is_noticed(
    host: Server, non_reading_upstream: socket.socket
) -> None:
    body = ASK[:-1] + b',"more":"' + b"x" * (LIMIT - 1000) + b'"}'
    client = host.connect()
    client.send("POST", "/deaf/v1/messages", body)
    upstream, _ = non_reading_upstream.accept()
    with upstream:
        upstream.settimeout(TIMEOUT_SECONDS)
        upstream.recv(1, socket.MSG_PEEK)
        client.close()
        record = host.record(host.newest()["id"])
        assert record["error_type"] == "client_closed"
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while data := upstream.recv(1 << 16):
                received += len(data)
        assert received < len(body)


@only_on(["gevent"])
def test_client_disconnect_while_connecting_upstream_is_noticed(host: Server) -> None:
    """Threads notice it only when connecting ends, at the latest after `connect_timeout`."""
    before = host.get("/interceptions?limit=1000")["count"]
    client = host.connect()
    client.send("POST", "/absent/v1/messages", ASK)
    wait_until(lambda: host.get("/interceptions?limit=1000")["count"] > before)
    client.close()
    record = host.record(host.newest()["id"])
    assert (record["provider_name"], record["error_type"]) == ("absent", "client_closed")


def test_client_disconnect_during_a_stream_closes_the_upstream(host: Server, upstream: Upstream) -> None:
    """Servers that do not expose the client's socket notice it when a ping fails."""
    upstream.enqueue(stream_head(), chunk(START + BLOCK), WAIT_FOR_CLOSE)
    client = host.connect()
    client.send("POST", MESSAGES, ASK)
    _, headers = client.head()
    assert client.chunk() == START + BLOCK
    client.close()
    assert upstream.peer_closed.wait(TIMEOUT_SECONDS)
    record = host.record(headers[ID])
    assert record["error_type"] == "client_closed"
    assert [usage["input_tokens"] for usage in record["token_usages"]] == [3]


@pytest.mark.parametrize("cut", [CLOSE, RESET])
def test_a_cut_stream_never_ends_cleanly(host: Server, upstream: Upstream, cut: object) -> None:
    go = threading.Event()
    upstream.enqueue(stream_head(), chunk(START + BLOCK + DELTA), go, cut)
    client = host.connect()
    client.send("POST", MESSAGES, ASK)
    _, headers = client.head()
    assert client.chunk() == START + BLOCK + DELTA
    go.set()
    event, whole = client.chunks()
    event = event.replace(PING, b"")
    assert not whole
    assert event.startswith(b"event: error\n")
    assert json.loads(event.partition(b"data: ")[2])["request_id"] == headers[ID]
    client.close()
    record = host.record(headers[ID])
    assert record["error_type"] == "server_error"
    assert [usage["output_tokens"] for usage in record["token_usages"]] == [1]


def test_a_cut_inside_an_event_is_just_a_cut(host: Server, upstream: Upstream) -> None:
    go = threading.Event()
    upstream.enqueue(stream_head(), chunk(START[:40]), go, CLOSE)
    client = host.connect()
    client.send("POST", MESSAGES, ASK)
    client.head()
    assert client.chunk() == START[:40]
    go.set()
    assert client.chunks() == (b"", False)


def test_a_cut_json_answer_stays_incomplete(host: Server, upstream: Upstream) -> None:
    upstream.enqueue(head(200, "Content-Length: 100"), b'{"id":', CLOSE)
    client = host.connect()
    client.send("POST", MESSAGES, ASK_BLOCKING)
    _, headers = client.head()
    assert client.body(headers) == (b'{"id":', False)
    client.close()
    assert host.record(headers[ID])["error_type"] == "server_error"


@only_on(["gevent", "gthread", "sync"])
def test_an_http_1_0_client_gets_a_reset_for_a_cut(host: Server, upstream: Upstream) -> None:
    go = threading.Event()
    upstream.enqueue(stream_head(), chunk(START[:30]), go, CLOSE)
    client = host.connect()
    client.send("POST", MESSAGES, ASK, version="1.0")
    client.head()
    assert client.stream.read(30) == START[:30]
    go.set()
    with pytest.raises(ConnectionResetError):
        client.stream.read(1)


@only_on(["gevent", "gthread", "waitress"])
def test_a_connection_serves_many_requests(host: Server, upstream: Upstream) -> None:
    client = host.connect()
    for count in range(3):
        answer = b'{"n":%d}' % count
        upstream.enqueue(http_response(200, answer))
        upstream.enqueue(http_response(529, b"overloaded"))
        client.send("POST", MESSAGES, ASK_BLOCKING)
        assert client.body(client.head()[1]) == (answer, True)
        client.send("GET", "/anthropic/v1/nowhere")
        status, headers = client.head()
        assert (status, client.body(headers)[1]) == (404, True)
        client.send("POST", MESSAGES, ASK)
        status, headers = client.head()
        assert (status, client.body(headers)) == (529, (b"overloaded", True))


@only_on(["gevent", "gthread"])
def test_a_connection_serves_many_streams(host: Server, upstream: Upstream) -> None:
    """waitress closes it after each response without a length."""
    client = host.connect()
    for _ in range(3):
        upstream.enqueue(stream_head(), chunk(START + END), LAST_CHUNK)
        client.send("POST", MESSAGES, ASK)
        assert client.body(client.head()[1]) == (START + END, True)


@pytest.mark.parametrize("framing", ["Content-Length: 4194305", "Transfer-Encoding: chunked"])
def test_a_large_body_is_413(host: Server, upstream: Upstream, framing: str) -> None:
    client = host.connect()
    size = LIMIT + 1
    body = b"x" * size
    head = f"POST {host.prefix}{MESSAGES} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n".encode()
    with contextlib.suppress(ConnectionError):  # the response comes before all is sent
        client.sock.sendall(
            head + (b"%x\r\n%s\r\n0\r\n\r\n" % (size, body) if "chunked" in framing else body)
        )
    status, headers = client.head()
    assert status == 413
    assert json.loads(client.body(headers)[0])["error"]["type"] == "request_too_large"
    assert upstream.requests == []


@pytest.mark.parametrize(
    "path",
    [
        "/anthropic//v1/messages",
        "//anthropic/v1/messages",
        "/anthropic/v1/%6dessages",
        "/anthropic/v1/messages%2F",
        "/anthropic/v1/messages%3Fx",
        "/anthropic/v1/models/../../v1/organizations",
        "/anthropic/v1/models/%2e%2e/organizations",
        "/anthropic/v1/models/%2E%2E%2Forganizations",
        "/anthropic/v1/models//x",
        "/anthropic/v1/models/x;y",
        "/anthropic/v1/models/%00",
        "/anthropic%2Fv1/models",
        "/%61nthropic/v1/models",
    ],
)
def test_no_trick_with_a_path_reaches_the_upstream(host: Server, upstream: Upstream, path: str) -> None:
    for method in ("POST", "GET"):
        client = host.connect()
        client.send(method, path)
        assert client.head()[0] == 404
    assert upstream.requests == []


def test_an_allowed_encoded_path_stays_encoded(host: Server, upstream: Upstream) -> None:
    upstream.enqueue(http_response(200, b"{}"))
    client = host.connect()
    client.send("GET", "/anthropic/v1/models/a%2Fb?x=%2F")
    status, headers = client.head()
    assert (status, client.body(headers)) == (200, (b"{}", True))
    assert upstream.requests[0].target == "/v1/models/a%2Fb?x=%2F"


@pytest.mark.parametrize("kind", ["gthread", "sync"])
def test_sigterm_lets_a_running_request_finish(start: Start, upstream: Upstream, kind: str) -> None:
    server = start(kind=kind)
    go = threading.Event()
    upstream.enqueue(stream_head(), chunk(START + BLOCK), go, chunk(END), LAST_CHUNK)
    client = server.connect()
    client.send("POST", MESSAGES, ASK)
    client.head()
    assert client.chunk() == START + BLOCK
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "Handling signal: term" in server.log.read_text())
    go.set()
    assert client.chunks() == (END, True)
    client.close()
    assert server.process.wait(TIMEOUT_SECONDS) == 0
    check_log(server.log.read_text())
