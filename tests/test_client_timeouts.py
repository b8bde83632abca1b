"""Clients that stop in the middle: of sending a body, or of reading a response. Slow ones are served."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import providers
from tests.support.dialogue import ASK, ASK_BLOCKING, CHAT, MESSAGES
from tests.support.robustness import MIB, check_still_serves, start_flood
from tests.support.server import PREFIX, Client, Server, wait_until
from tests.support.upstream import Upstream, http_response

CLIENT_TIMEOUT = 0.5  # seconds
PAUSE = CLIENT_TIMEOUT / 5
COUNT = "/anthropic/v1/messages/count_tokens"
LENGTH = f"Content-Length: {len(ASK_BLOCKING)}"
ESTABLISHED, CLOSE_WAIT = "01", "08"  # in /proc/net/tcp
CHUNKED = "Transfer-Encoding: chunked"


@pytest.fixture(scope="module", params=["gevent", "gthread", "sync"])
def impatient(
    request: pytest.FixtureRequest, shared_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The bridge under each server, with a short `client_timeout`."""
    settings = {
        "providers": providers(shared_upstream.url),
        "client_timeout": CLIENT_TIMEOUT,
        "drain_delay": 0,
    }
    server = Server(
        tmp_path_factory.mktemp("impatient"), settings, kind=request.param, is_forked=True
    ).wait_ready()
    yield server
    server.disconnect()
    server.stop_cleanly()


def begin(client: Client, path: str, framing: str) -> None:
    lines = [f"POST {PREFIX}{path} HTTP/1.1", "Host: 127.0.0.1", framing]
    client.sock.sendall("\r\n".join([*lines, "\r\n"]).encode())


def test_a_body_that_stops_is_given_up(impatient: Server, upstream: Upstream) -> None:
    for path, framing, part in (
        (MESSAGES, LENGTH, b""),
        (MESSAGES, LENGTH, ASK_BLOCKING[:-1]),
        (CHAT, CHUNKED, b"5\r\n{"),
        (COUNT, CHUNKED, b"1\r\n{\r\n"),
    ):
        client = impatient.connect()
        begin(client, path, framing)
        client.sock.sendall(part)
        status, headers = client.head()
        body, _ = client.body(headers)
        assert (status, "request body did not arrive in time" in json.loads(body)["error"]["message"]) == (
            408,
            True,
        )
        with contextlib.suppress(ConnectionError):
            assert client.sock.recv(1) == b""  # nothing more is read of it
    assert upstream.requests == []
    check_still_serves(impatient, upstream)


def test_a_slow_body_is_read(impatient: Server, upstream: Upstream) -> None:
    upstream.enqueue(http_response(200, b"{}"))
    client = impatient.connect()
    begin(client, MESSAGES, LENGTH)
    for position in range(10):
        time.sleep(PAUSE)  # the client's pace
        client.sock.sendall(ASK_BLOCKING[position : position + 1])
    client.sock.sendall(ASK_BLOCKING[10:])
    assert client.body(client.head()[1]) == (b"{}", True)
    assert upstream.requests[0].body == ASK_BLOCKING


FLOODS = [
    (ASK, MESSAGES, True),
    (ASK_BLOCKING, MESSAGES, False),
    (b'{"model":"m","messages":[]}', COUNT, False),
]


@pytest.mark.parametrize(("body", "path", "chunked"), FLOODS)
def test_a_client_that_stops_reading_frees_its_upstream(
    impatient: Server, upstream: Upstream, body: bytes, path: str, chunked: bool
) -> None:
    flood = start_flood(upstream, chunked, 200)
    client = impatient.connect()
    client.send("POST", path, body)
    _, headers = client.head()
    wait_until(lambda: upstream.open_connections() == 0)
    assert flood.sent < 200
    if path != COUNT:
        assert impatient.record(headers["x-aibridge-interception-id"])["error_type"] == "client_closed"


def test_a_client_that_reads_no_page_is_given_up(impatient: Server, upstream: Upstream) -> None:
    thoughts = [{"type": "thinking", "thinking": "word " * (MIB * 3 // 5)}] * 5
    answer = json.dumps({"id": "m", "content": thoughts, "usage": {}}).encode()
    upstream.handler = lambda received: [http_response(200, answer)]
    id = impatient.post(MESSAGES, ASK_BLOCKING)[3]
    impatient.record(id)
    impatient.disconnect()
    wait_until(lambda: count_connections(impatient) == 0)
    client = impatient.connect()
    client.send("GET", f"/interceptions/{id}")
    status, headers = client.head()
    assert (status, int(headers["content-length"]) > 10 * MIB) == (200, True)
    wait_until(lambda: count_connections(impatient) == 0)


def count_connections(server: Server) -> int:
    """Counts the connections that the server holds to its clients, those too that a client has ended."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    states = [state for _, local, _, state, *_ in lines if local.endswith(f":{server.port:04X}")]
    return len([state for state in states if state in (ESTABLISHED, CLOSE_WAIT)])


def test_a_client_that_reads_slowly_is_served(impatient: Server, upstream: Upstream) -> None:
    """It takes a little at a time, and less than the bridge writes at once."""
    start_flood(upstream, chunked=False, size=30)
    client = impatient.connect()
    client.send("POST", MESSAGES, ASK_BLOCKING)
    _, headers = client.head()
    size = int(headers["content-length"])
    for _ in range(15):
        time.sleep(PAUSE)  # the client's pace
        size -= len(client.stream.read(MIB // 4))
    assert len(client.stream.read(size)) == size
