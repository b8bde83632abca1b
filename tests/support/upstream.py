"""A scripted upstream on loopback: it keeps each request and answers with the next script.

A script is a list of steps: bytes are sent as they are; an Event is waited for; a function is called
with the socket; CLOSE closes the connection, RESET resets it, WAIT_FOR_CLOSE waits until the peer has
closed it.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

Step = object
CLOSE, RESET, WAIT_FOR_CLOSE = object(), object(), object()
TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class ReceivedRequest:
    """A request as it was on the wire."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) < 2, f"{name} came twice"
        return values[0] if values else None

    def names(self) -> set[str]:
        return {name.lower() for name, _ in self.headers}


class Upstream:
    """Serves until `close`.

    `handler` answers requests without a script; `takeover` gets new connections before anything is read.
    `peer_closed` is set once WAIT_FOR_CLOSE was reached and the peer has closed the connection.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.requests: list[ReceivedRequest] = []
        self.connections = 0
        self.peer_closed = threading.Event()
        self.takeover: Callable[[socket.socket], None] | None = None
        self.handler: Callable[[ReceivedRequest], Iterable[Step]] = _unscripted
        self._scripts: deque[Iterable[Step]] = deque()
        self._open: set[socket.socket] = set()
        self._arrived = threading.Condition()
        threading.Thread(target=self._accept, daemon=True).start()

    def enqueue(self, *steps: Step) -> None:
        """Adds the script of a response: requests take the scripts in order."""
        self._scripts.append(steps)

    def wait_for_requests(self, count: int) -> list[ReceivedRequest]:
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.requests) >= count, TIMEOUT_SECONDS)
            return list(self.requests)

    def open_connections(self) -> int:
        return len(self._open)

    def reset(self) -> None:
        """Drops all requests and scripts, and closes idle connections."""
        self.handler = _unscripted
        self._scripts.clear()
        self.requests.clear()
        self.peer_closed.clear()
        self.takeover, self.handler = None, _unscripted
        self.connections = 0
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.reset()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        if self._tls is not None:
            try:
                sock = self._tls.wrap_socket(sock, server_side=True)
            except OSError:
                return
        self._open.add(sock)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError), sock, sock.makefile("rb") as stream:
            takeover = self.takeover
            if takeover is not None:
                takeover(sock)
            while takeover is None and (received := _read_request(stream)):
                with self._arrived:
                    self.requests.append(received)
                    self._arrived.notify_all()
                if not self._play(sock, received):
                    break
        self._open.discard(sock)

    def _play(self, sock: socket.socket, received: ReceivedRequest) -> bool:
        steps = self._scripts.popleft() if self._scripts else self.handler(received)
        for step in steps:
            if isinstance(step, bytes):
                sock.sendall(step)
            elif isinstance(step, threading.Event):
                assert step.wait(TIMEOUT_SECONDS)
            elif step is RESET:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return False
            elif step is WAIT_FOR_CLOSE:
                sock.settimeout(TIMEOUT_SECONDS)
                with contextlib.suppress(ConnectionError):
                    assert sock.recv(1) == b""
                self.peer_closed.set()
                return False
            elif step is CLOSE:
                return False
            elif callable(step):
                step(sock)
        return True


def _unscripted(received: ReceivedRequest) -> Iterable[Step]:
    return [http_response(500, b'{"error":{"message":"unscripted"}}')]


def _read_request(stream: object) -> ReceivedRequest | None:
    line = stream.readline().decode("latin-1")
    if not line:
        return None
    method, target, _ = line.split(" ", 2)
    headers = []
    while (raw := stream.readline().decode("latin-1")) not in ("\r\n", ""):
        name, _, value = raw.partition(":")
        headers.append((name, value.strip()))
    length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
    return ReceivedRequest(method, target, tuple(headers), stream.read(length))


def head(status: int = 200, *headers: str, kind: str = "application/json") -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", *headers]
    return "\r\n".join([*lines, "\r\n"]).encode("latin-1")


def http_response(status: int, body: bytes, *headers: str, kind: str = "application/json") -> bytes:
    """A whole response with its length."""
    return head(status, f"Content-Length: {len(body)}", *headers, kind=kind) + body


def stream_head(*headers: str) -> bytes:
    """The head of a chunked event stream."""
    kind = "text/event-stream; charset=utf-8"
    return head(200, "Transfer-Encoding: chunked", *headers, kind=kind)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"


def event_stream(events: bytes, size: int = 0, *headers: str) -> list[bytes]:
    """A whole event stream, in chunks of `size` bytes (0: one)."""
    size = size or len(events) or 1
    pieces = [events[i : i + size] for i in range(0, len(events), size)]
    return [stream_head(*headers), b"".join(chunk(piece) for piece in pieces), LAST_CHUNK]
