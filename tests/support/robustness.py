"""Checks that a server still works after hostile traffic: it serves the next request, its memory stays small."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from tests.support.dialogue import ASK_BLOCKING, MESSAGES
from tests.support.server import Server
from tests.support.upstream import Upstream, http_response

MIB = 1 << 20


@dataclass(frozen=True)
class ReceivedResponse:
    """A response as the client received it."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_complete: bool

    @property
    def id(self) -> str:
        return self.headers["x-aibridge-interception-id"]


def fetch(
    server: Server, body: bytes = ASK_BLOCKING, path: str = MESSAGES, method: str = "POST"
) -> ReceivedResponse:
    """Sends a request on a new connection; no response shows a traceback."""
    client = server.connect()
    client.send(method, path, body if method == "POST" else b"")
    status, headers = client.head()
    has_body = method != "HEAD" and status not in (204, 304)
    data, is_complete = client.body(headers) if has_body else (b"", True)
    client.close()
    assert b"Traceback" not in data
    return ReceivedResponse(status, headers, data, is_complete)


def send_raw(server: Server, data: bytes) -> tuple[int, bytes]:
    """Sends raw bytes on a new connection and reads until the server closes it.

    Returns the status of the first response (0: none) and all bytes.
    """
    client = server.connect()
    with contextlib.suppress(ConnectionError):
        client.sock.sendall(data)
    received = b""
    with contextlib.suppress(ConnectionError):
        while piece := client.sock.recv(65536):
            received += piece
    client.close()
    assert b"Traceback" not in received
    return int(received.split(b" ", 2)[1]) if received else 0, received


def check_still_serves(server: Server, upstream: Upstream) -> None:
    """The next request gets its own complete response."""
    upstream.enqueue(http_response(200, b'{"next":1}'))
    response = fetch(server)
    assert (response.status, response.body, response.is_complete) == (200, b'{"next":1}', True)


def resident_mib(server: Server) -> int:
    """The worker's resident memory in MiB."""
    (worker,) = server.workers()
    pages = int(Path(f"/proc/{worker}/statm").read_text().split()[1])
    return pages * 4096 // MIB
