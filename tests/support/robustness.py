"""Checks that a server still works after hostile traffic: it serves the next request, its memory stays small."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.dialogue import ASK_BLOCKING, MESSAGES
from tests.support.server import Server, wait_until
from tests.support.upstream import (
    LAST_CHUNK,
    ReceivedRequest,
    Step,
    Upstream,
    chunk,
    head,
    http_response,
    stream_head,
)

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


def check_memory_returns(server: Server, before: int, allowed_mib: int) -> None:
    """The worker's memory is back at what it was: a response comes before its request's end."""
    wait_until(lambda: resident_mib(server) - before < allowed_mib)


@contextlib.contextmanager
def track_memory_growth(server: Server) -> Iterator[list[int]]:
    """Yields a list; at the end it holds the peak growth of the worker's memory in MiB."""
    (worker,) = server.workers()
    Path(f"/proc/{worker}/clear_refs").write_text("5")
    before, growth = resident_mib(server), []
    yield growth
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{worker}/status").read_text())
    assert peak
    growth.append(int(peak[1]) // 1024 - before)


class Flood:
    """An answer of `size` MiB that counts the MiB that were sent."""

    def __init__(self, opening: bytes, chunked: bool, size: int) -> None:
        self.sent = 0
        self._opening, self._chunked, self._size = opening, chunked, size

    def __call__(self, received: ReceivedRequest) -> Iterator[Step]:
        yield self._opening
        block = (b"data: " + b"x" * 65_528 + b"\n\n") * 16
        for _ in range(self._size):
            yield chunk(block) if self._chunked else block
            self.sent += 1
        yield LAST_CHUNK if self._chunked else b""

    def stalls(self) -> bool:
        """Whether nothing could be sent for a while."""
        before = self.sent
        time.sleep(0.3)
        return before == self.sent > 0


def start_flood(upstream: Upstream, chunked: bool, size: int) -> Flood:
    opening = stream_head() if chunked else head(200, f"Content-Length: {size * MIB}")
    upstream.handler = flood = Flood(opening, chunked, size)
    return flood
