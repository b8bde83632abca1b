"""Waiting for an upstream, or for a client that leaves meanwhile."""

from __future__ import annotations

import _socket
import contextlib
import errno
import os
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from ..errors import ClientDisconnected
from .runtime import under_gevent, unpatched

T = TypeVar("T")
_LOOK_AGAIN = 0.5
_POLLRDHUP = getattr(select, "POLLRDHUP", 0)
_READ, _WRITE = 1, 2  # libev's words
_BUSY = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Client(Protocol):
    """The client's side of a request: what is done with an upstream through it ends when it leaves.

    All raise ClientGone; `timeout` is in seconds, after which they raise TimeoutError.
    """

    def check(self) -> None:
        """Raises ClientGone where it has left already, as far as that can be told."""

    def wait_for(self, call: Callable[[], T]) -> T:
        """Calls something that waits in its own way."""

    def send(self, upstream: socket.socket, data: bytes, timeout: float) -> None:
        """Sends all; `timeout` is that of each wait. Raises OSError."""

    def recv(self, upstream: socket.socket, size: int, timeout: float, drained: bool = False) -> bytes:
        """At most `size` bytes, b"" at their end; nothing is tried before something has come to a `dry`
        socket. Raises OSError."""

    def close(self) -> None:
        """Stops watching."""


class _Blind:
    """A server that does not give the client's socket: leaving shows at the next write."""

    def check(self) -> None:
        """Nothing is known."""

    def wait_for(self, call: Callable[[], T]) -> T:
        return call()

    def send(self, upstream: socket.socket, data: bytes, timeout: float) -> None:
        upstream.settimeout(timeout)
        upstream.sendall(data)

    def recv(self, upstream: socket.socket, size: int, timeout: float, drained: bool = False) -> bytes:
        upstream.settimeout(timeout)
        return upstream.recv(size)

    def close(self) -> None:
        """Nothing was watched."""


UNWATCHED: Client = _Blind()


class _Waiting:
    """Tries first and waits then: on TLS what can be read may stand in the library already."""

    _gone = False

    def recv(self, upstream: socket.socket, size: int, timeout: float, drained: bool = False) -> bytes:
        if self._gone:
            raise ClientDisconnected
        upstream.settimeout(0)
        if drained:
            self._wait(upstream.fileno(), _READ, timeout)
        while True:
            try:
                return upstream.recv(size)
            except _BUSY as error:
                event = _event(error, _READ)
            self._wait(upstream.fileno(), event, timeout)

    def send(self, upstream: socket.socket, data: bytes, timeout: float) -> None:
        self.check()  # a request that nobody waits for costs all the same
        upstream.settimeout(0)
        left = memoryview(data)
        while left:
            try:
                left = left[upstream.send(left) :]
                continue
            except _BUSY as error:
                event = _event(error, _WRITE)
            self._wait(upstream.fileno(), event, timeout)

    def check(self) -> None:
        raise NotImplementedError

    def _wait(self, upstream: int, event: int, timeout: float) -> None:
        raise NotImplementedError


def _event(error: OSError, wanted: int) -> int:
    """TLS may have to write before it can read."""
    if isinstance(error, ssl.SSLWantReadError):
        return _READ
    return _WRITE if isinstance(error, ssl.SSLWantWriteError) else wanted


class _Polled(_Waiting):
    """Threads: both sockets are polled."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._watched = select.POLLIN | _POLLRDHUP

    def wait_for(self, call: Callable[[], T]) -> T:
        self.check()
        return call()

    def check(self) -> None:
        if _has_left(self._client) or _has_hung_up(self._client):
            raise ClientDisconnected

    def _wait(self, upstream: int, event: int, timeout: float) -> None:
        end, client = time.monotonic() + timeout, self._client.fileno()
        poll = select.poll()
        poll.register(upstream, select.POLLIN if event == _READ else select.POLLOUT)
        poll.register(client, self._watched)
        while ready := dict(poll.poll(max(0, end - time.monotonic()) * 1000)):
            told = ready.get(client, 0)
            if told & ~select.POLLIN or (told and _has_left(self._client)):
                raise ClientDisconnected
            if told:  # bytes of a next request: they would wake us without end
                self._watched = _POLLRDHUP
                poll.modify(client, self._watched)
            if upstream in ready:
                return
        raise TimeoutError

    def close(self) -> None:
        """Nothing is kept."""


class _Watched(_Waiting):
    """gevent: the hub watches the client, and wakes who waits here when it leaves."""

    def __init__(self, client: Any) -> None:
        from gevent import get_hub

        self._client, self._loop = client, get_hub().loop
        self._asleep: Any = None
        self._timer: Any = None
        self._io = self._loop.io(client.fileno(), _READ)
        self._io.start(self._ready)

    def check(self) -> None:
        if self._gone:
            raise ClientDisconnected

    def wait_for(self, call: Callable[[], T]) -> T:
        from gevent import getcurrent

        self.check()
        self._asleep = getcurrent()
        try:
            return call()
        finally:
            self._asleep = None

    def _wait(self, upstream: int, event: int, timeout: float) -> None:
        from gevent.hub import Waiter

        waiter = self._asleep = Waiter()
        io, timer = self._loop.io(upstream, event), self._loop.timer(timeout)
        io.start(waiter.switch, True)
        timer.start(waiter.switch, False)
        try:
            if not waiter.get():
                raise TimeoutError
        finally:
            self._asleep = None
            _end(io)
            _end(timer)

    def _ready(self) -> None:
        self._io.stop()  # level-triggered: bytes of a next request would wake us without end
        if _has_left(self._client):
            self._leave()
        else:
            self._timer = self._loop.timer(_LOOK_AGAIN, _LOOK_AGAIN)
            self._timer.start(self._look)

    def _look(self) -> None:
        if _has_hung_up(self._client):
            self._timer.stop()
            self._leave()

    def _leave(self) -> None:
        self._gone = True
        if self._asleep is not None:
            self._asleep.throw(ClientDisconnected)

    def close(self) -> None:
        _end(self._io)
        if self._timer is not None:
            _end(self._timer)


def _end(watcher: Any) -> None:
    watcher.stop()
    watcher.close()


def watch(client_socket: Any) -> Client:
    """Watches a client from now on; `client_socket` is None where the server gives none."""
    try:
        if client_socket is None:
            return _Blind()
        return _Watched(client_socket) if under_gevent() else _Polled(client_socket)
    except (OSError, ValueError):
        raise ClientDisconnected from None  # closed already


def _has_left(client: Any) -> bool:
    """Looks without taking anything. A plain socket on a duplicate of the descriptor, since TLS
    sockets refuse to peek; its flags are the client's too."""
    try:
        with contextlib.closing(_socket.socket(fileno=os.dup(client.fileno()))) as plain:
            return not plain.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError as error:
        return error.errno not in (errno.EMFILE, errno.ENFILE)


def _has_hung_up(client: Any) -> bool:
    """As `_has_left`, also behind bytes of a next request."""
    poll = unpatched("select", "poll")()
    poll.register(client.fileno(), _POLLRDHUP)
    return bool(poll.poll(0))


def readiness_probe(upstream: socket.socket) -> Callable[[], bool]:
    """Tells, without waiting, whether something stands in a socket, or it has ended."""
    poll = unpatched("select", "poll")()
    poll.register(upstream.fileno(), select.POLLIN)
    return lambda: bool(poll.poll(0))
