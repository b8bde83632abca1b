"""Upstreams that answer while the request is still being sent to them, and take no more of it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from tests.conftest import Start
from tests.support.dialogue import MESSAGES
from tests.support.robustness import MIB, ReceivedResponse, check_still_serves
from tests.support.server import TIMEOUT_SECONDS, Server
from tests.support.upstream import CLOSE, RESET, Step, Upstream, event_stream, head, http_response

LARGE = b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"' + b"x" * (8 * MIB) + b'"}]}'
OPEN = object()
REFUSAL = b'{"type":"error","error":{"type":"request_too_large","message":"no"}}'
KINDS = ("gevent", "gthread", "waitress")  # the last one does not let the bridge watch its client


class Impatient:
    """Reads the head of a request and some of its body, sends its steps, and then reads no more."""

    def __init__(self, *steps: Step, end: Step = OPEN, body_bytes: int = 0) -> None:
        self._steps, self._end, self._body_bytes = steps, end, body_bytes
        self.read, self.done = 0, threading.Event()

    def __call__(self, sock: socket.socket) -> None:
        head_end = b""
        while not head_end.endswith(b"\r\n\r\n"):
            head_end += sock.recv(1)
        self._read(sock, self._body_bytes)
        for step in self._steps:
            if isinstance(step, bytes):
                sock.sendall(step)
            else:
                self._read(sock, step)
        if self._end is OPEN:
            assert self.done.wait(TIMEOUT_SECONDS)
        if self._end is RESET:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    def _read(self, sock: socket.socket, size: int) -> None:
        end = self.read + size
        while self.read < end and (piece := sock.recv(min(end - self.read, MIB))):
            self.read += len(piece)


@pytest.fixture
def expect(upstream: Upstream) -> Iterator[Callable[..., Impatient]]:
    """Lets the upstream answer next connections so."""
    made: list[Impatient] = []

    def make(*steps: Step, **options: object) -> Impatient:
        made.append(Impatient(*steps, **options))
        upstream.takeover = made[-1]
        return made[-1]

    yield make
    for answer in made:
        answer.done.set()


def fetch(server: Server, body: bytes = LARGE) -> ReceivedResponse:
    """Asks with a key of the client's own: its refusal is passed on as it is."""
    client = server.connect()
    client.send("POST", MESSAGES, body, X_Api_Key="sk-own-0123456789")
    status, headers = client.head()
    data, is_complete = client.body(headers)
    client.close()
    return ReceivedResponse(status, headers, data, is_complete)


def check_refusal(server: Server, answer: Impatient, status: int) -> None:
    response = fetch(server)
    assert (response.status, response.body, response.is_complete) == (status, REFUSAL, True)
    assert response.headers["x-odd"] == "1"
    assert server.record(response.id)["status_code"] == status
    answer.done.set()


@pytest.mark.parametrize("kind", KINDS)
def test_a_refusal_is_read_while_the_body_is_sent(
    start: Start, upstream: Upstream, expect: Callable[..., Impatient], kind: str
) -> None:
    server = start(kind=kind)
    for status, end, body_bytes in (
        (413, OPEN, 0),
        (401, OPEN, 2 * MIB),
        (429, CLOSE, 0),
        (400, RESET, 0),
        (413, CLOSE, 2 * MIB),
    ):
        refusal = http_response(status, REFUSAL, "X-Odd: 1")
        check_refusal(server, expect(refusal, end=end, body_bytes=body_bytes), status)
    refusal = http_response(413, REFUSAL, "X-Odd: 1")
    for steps in (
        [refusal[:20], MIB, refusal[20:]],
        [b"HTTP/1.1 100 Continue\r\n\r\n", 3 * MIB, refusal],
        [b"HTTP/1.1 103 Early Hints\r\n\r\n" + refusal[:9], 2 * MIB, refusal[9:]],
    ):
        check_refusal(server, expect(*steps), 413)
    upstream.takeover = None
    check_still_serves(server, upstream)


@pytest.mark.parametrize("kind", KINDS)
def test_a_success_before_the_body_was_read_does_not_end_it(
    start: Start, upstream: Upstream, expect: Callable[..., Impatient], kind: str
) -> None:
    server = start(kind=kind)
    answer = expect(head(200, "Content-Length: 2"), len(LARGE), b"{}", end=CLOSE)
    assert fetch(server).body == b"{}"
    assert answer.read >= len(LARGE)


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_an_upstream_that_neither_reads_nor_answers_is_left_after_the_read_timeout(
    start: Start, upstream: Upstream, expect: Callable[..., Impatient], kind: str
) -> None:
    server = start(kind=kind, read_timeout=0.5)
    expect()
    assert fetch(server).status == 504


@pytest.mark.parametrize("kind", KINDS)
def test_a_refusal_over_tls(start: Start, tmp_path: Path, kind: str) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with contextlib.closing(Upstream(context)) as upstream:
        provider = {"type": "anthropic", "base_url": upstream.url, "ca_file": str(tmp_path / "ca.pem")}
        server = start(kind=kind, providers=[provider])
        for refusal in (
            http_response(413, REFUSAL),
            b"".join(event_stream(b"data: no\n\n")).replace(b"200", b"413"),
        ):
            answer = upstream.takeover = Impatient(refusal, body_bytes=MIB)
            response = fetch(server)
            assert (response.status, response.is_complete) == (413, True)
            answer.done.set()
        upstream.takeover = None
        upstream.enqueue(http_response(200, b"{}"))
        assert fetch(server).body == b"{}"
        assert upstream.requests[0].body == LARGE
