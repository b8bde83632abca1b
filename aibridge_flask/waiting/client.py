"""Waiting for an upstream's bytes or for a client that leaves."""

from __future__ import annotations

import _socket
import contextlib
import errno
import os
import select
import socket
import ssl
import time
from typing import Any, Protocol, TypeVar

from ..errors import ClientGone
from .kind import original, under_gevent

T = TypeVar("T")
_LOOK_AGAIN = 0.5
_POLLRDHUP = getattr(select, "POLLRDHUP", 0)


class Client(Protocol):
    """The client's side of a request: reading an upstream through it ends when it leaves."""

    def guard(self, upstream: socket.socket | None) -> None:
        """From now on its leaving ends this connection; none (None): no longer."""

    def check(self) -> None:
        """Raises ClientGone where it has left already, as far as that can be told."""

    def recv(self, upstream: socket.socket, size: int, timeout: float) -> bytes:
        """At most `size` bytes, b"" at their end. Raises TimeoutError after `timeout` seconds
        without any, ClientGone, or OSError."""

    def close(self) -> None:
        """Stops watching."""


class _Blind:
    """A server that does not give the client's socket: leaving shows at the next write."""

    def guard(self, upstream: socket.socket | None) -> None:
        """Nothing is watched."""

    def check(self) -> None:
        """Nothing is known."""

    def recv(self, upstream: socket.socket, size: int, timeout: float) -> bytes:
        upstream.settimeout(timeout)
        return upstream.recv(size)

    def close(self) -> None:
        """Nothing was watched."""


NOBODY: Client = _Blind()


class _Peek:
    """Looks at a client's socket without taking anything from it. A plain socket on a
    duplicate of its descriptor, since TLS sockets refuse to peek."""

    def __init__(self, client: Any) -> None:
        self._plain = _socket.socket(fileno=os.dup(client.fileno()))  # its flags are the client's too
        self.fileno = self._plain.fileno
        self.close = self._plain.close

    def has_left(self) -> bool:
        try:
            return not self._plain.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def has_hung_up(self) -> bool:
        """As `has_left`, also behind bytes of a next request."""
        return _polled(self.fileno(), _POLLRDHUP)


class _Polled:
    """Threads: both sockets are polled before each read."""

    def __init__(self, client: Any) -> None:
        self._peek = _Peek(client)
        self._watched = select.POLLIN | _POLLRDHUP

    def guard(self, upstream: socket.socket | None) -> None:
        """Leaving is seen while reading."""

    def recv(self, upstream: socket.socket, size: int, timeout: float) -> bytes:
        end = time.monotonic() + timeout
        pending = getattr(upstream, "pending", None)
        upstream.settimeout(0)
        while True:
            if not (pending and pending()):
                self._wait(upstream.fileno(), end)
            try:
                return upstream.recv(size)
            except (BlockingIOError, ssl.SSLWantReadError):
                continue  # a part of a TLS record, or nothing for us in it

    def check(self) -> None:
        if self._peek.has_left() or self._peek.has_hung_up():
            raise ClientGone

    def _wait(self, upstream: int, end: float) -> None:
        poll = select.poll()
        poll.register(upstream, select.POLLIN)
        poll.register(self._peek.fileno(), self._watched)
        while ready := dict(poll.poll(max(0, end - time.monotonic()) * 1000)):
            told = ready.get(self._peek.fileno(), 0)
            if told & ~select.POLLIN or (told and self._peek.has_left()):
                raise ClientGone
            if told:  # bytes of a next request: they would wake us without end
                self._watched = _POLLRDHUP
                poll.modify(self._peek.fileno(), self._watched)
            if upstream in ready:
                return
        raise TimeoutError

    def close(self) -> None:
        self._peek.close()


class _Watched:
    """gevent: the hub watches the client, and shuts the upstream's socket when it leaves, which
    wakes whoever reads or writes there."""

    def __init__(self, client: Any) -> None:
        from gevent import get_hub

        self._gone = False
        self._upstream: Any = None
        self._peek = _Peek(client)
        self._loop = get_hub().loop
        self._io = self._loop.io(self._peek.fileno(), 1)
        self._timer = self._loop.timer(_LOOK_AGAIN, _LOOK_AGAIN)
        self._io.start(self._ready)

    def _ready(self) -> None:
        self._io.stop()  # level-triggered: bytes of a next request would wake us without end
        if self._peek.has_left():
            self._leave()
        else:
            self._timer.start(self._look)

    def _look(self) -> None:
        if self._peek.has_hung_up():
            self._leave()

    def _leave(self) -> None:
        self._gone = True
        self._timer.stop()
        if self._upstream is not None:
            with contextlib.suppress(OSError):
                self._upstream.shutdown(socket.SHUT_RDWR)

    def check(self) -> None:
        if self._gone:
            raise ClientGone

    def guard(self, upstream: socket.socket | None) -> None:
        self._upstream = upstream

    def recv(self, upstream: socket.socket, size: int, timeout: float) -> bytes:
        if self._gone:
            raise ClientGone
        upstream.settimeout(timeout)
        try:
            data = upstream.recv(size)
        except OSError:
            if self._gone:
                raise ClientGone from None
            raise
        if self._gone and not data:
            raise ClientGone
        return data

    def close(self) -> None:
        self._upstream = None
        for watcher in (self._io, self._timer):
            watcher.stop()
            watcher.close()
        self._peek.close()


def watch(client_socket: Any) -> Client:
    """Watches a client from now on; `client_socket` is None where the server gives none."""
    try:
        if client_socket is None:
            return _Blind()
        return _Watched(client_socket) if under_gevent() else _Polled(client_socket)
    except (OSError, ValueError) as error:
        if getattr(error, "errno", 0) in (errno.EMFILE, errno.ENFILE):
            return _Blind()
        raise ClientGone from None  # closed already


def has_news(descriptor: int) -> bool:
    """Something stands in a socket, or it has ended; asked without waiting."""
    return _polled(descriptor, select.POLLIN)


def _polled(descriptor: int, events: int) -> bool:
    poll = original("select", "poll")()
    poll.register(descriptor, events)
    return bool(poll.poll(0))
