"""Waits for an upstream while it watches the client, which may disconnect meanwhile."""

from __future__ import annotations

import math
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from ..errors import BridgeError, ClientDisconnected
from .fairness import let_others_run
from .probes import POLLRDHUP, has_disconnected, has_hung_up, readiness_probe
from .runtime import under_gevent

T = TypeVar("T")
_POLL_SECONDS = 0.5
_MAX_AWAKE_SECONDS = 0.005  # between two reads, without waiting
_SEND_BYTES = 1 << 20  # at once
_READ, _WRITE = 1, 2  # libev's constants
WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Client(Protocol):
    """A client's connection. Waits for an upstream go through it, and end when the client disconnects.

    All methods raise ClientDisconnected; those with a `timeout` in seconds raise TimeoutError.
    """

    def check(self) -> None:
        """Raises ClientDisconnected if the client is known to have disconnected."""

    def wait_for(self, call: Callable[[], T]) -> T:
        """Calls `call`, which blocks, and ends it if the client disconnects."""

    def send(self, upstream: socket.socket, data: memoryview, timeout: float, heed: bool = True) -> int:
        """Sends data and returns how much; `timeout` is that of each wait. Raises OSError.

        With `heed` it returns early if the upstream takes no more, and has sent something itself.
        """

    def recv(self, upstream: socket.socket, size: int, timeout: float, drained: bool = False) -> bytes:
        """Returns up to `size` bytes, or b"" at the end of the stream. Raises OSError.

        A `drained` socket is waited for before the first read, which would find nothing.
        """

    def close(self) -> None:
        """Stops watching."""


class CancellableClient(Client, Protocol):
    """A Client whose request can be cancelled."""

    def cancel(self, make_error: Callable[[], BridgeError]) -> None:
        """Ends the wait that may be under way, and all further ones, with an error.

        Under gevent to be called in the hub. Only the first call has an effect.
        """


class _SocketClient:
    """Reads before it waits: with TLS, readable data may already be in the library's buffer."""

    _make_error: Callable[[], BridgeError] | None = None
    _awake_since = math.inf

    def recv(self, upstream: socket.socket, size: int, timeout: float, drained: bool = False) -> bytes:
        if self._make_error is not None:
            raise self._make_error()
        if upstream.timeout != 0:
            upstream.settimeout(0)
        if drained:
            self._wait(upstream.fileno(), _READ, timeout)
            self._awake_since = time.monotonic()
        elif time.monotonic() - self._awake_since > _MAX_AWAKE_SECONDS:
            let_others_run()
            self._awake_since = time.monotonic()
        while True:
            try:
                return upstream.recv(size)
            except WOULD_BLOCK as error:
                event = _event(error, _READ)
            self._wait(upstream.fileno(), event, timeout)
            self._awake_since = time.monotonic()

    def send(self, upstream: socket.socket, data: memoryview, timeout: float, heed: bool = True) -> int:
        self.check()  # the provider bills a request even if nobody waits for it
        upstream.settimeout(0)
        sent = 0
        while sent < len(data):
            event = _WRITE
            try:
                # gevent's TLS returns 0 where it would block
                if count := upstream.send(data[sent : sent + _SEND_BYTES]):
                    sent += count
                    if count == _SEND_BYTES:
                        let_others_run()
                    continue
            except WOULD_BLOCK as error:
                event = _event(error, _WRITE)
            self._wait(upstream.fileno(), event | _READ if heed else event, timeout)
            if heed and readiness_probe(upstream)():
                break
        return sent

    def cancel(self, make_error: Callable[[], BridgeError]) -> None:
        self._make_error = self._make_error or make_error

    def _raise_if_ended(self) -> None:
        if self._make_error is not None:
            raise self._make_error()

    def check(self) -> None:
        raise NotImplementedError

    def _wait(self, upstream: int, event: int, timeout: float) -> None:
        raise NotImplementedError


def _event(error: OSError, wanted: int) -> int:
    """Returns the direction to wait for: TLS may have to write before it can read."""
    if isinstance(error, ssl.SSLWantReadError):
        return _READ
    return _WRITE if isinstance(error, ssl.SSLWantWriteError) else wanted


class _UnwatchedClient(_SocketClient):
    """For servers that do not expose the client's socket: a disconnect is noticed at the next write."""

    def check(self) -> None:
        """A disconnect cannot be detected."""
        self._raise_if_ended()

    def wait_for(self, call: Callable[[], T]) -> T:
        return call()

    def _wait(self, upstream: int, event: int, timeout: float) -> None:
        poll = select.poll()
        poll.register(upstream, _poll_events(event))
        if not poll.poll(timeout * 1000):
            raise TimeoutError

    def recv(self, upstream: socket.socket, size: int, timeout: float, drained: bool = False) -> bytes:
        self._raise_if_ended()
        upstream.settimeout(timeout)
        return upstream.recv(size)

    def close(self) -> None:
        """There is no watcher."""


UNWATCHED: Client = _UnwatchedClient()


def _poll_events(events: int) -> int:
    return (select.POLLIN if events & _READ else 0) | (select.POLLOUT if events & _WRITE else 0)


class _PolledClient(_SocketClient):
    """For threads: polls the sockets of upstream and client."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._poll_mask = select.POLLIN | POLLRDHUP

    def wait_for(self, call: Callable[[], T]) -> T:
        self.check()
        return call()

    def check(self) -> None:
        self._raise_if_ended()
        if has_disconnected(self._client) or has_hung_up(self._client):
            raise ClientDisconnected

    def _wait(self, upstream: int, event: int, timeout: float) -> None:
        end, client = time.monotonic() + timeout, self._client.fileno()
        poll = select.poll()
        poll.register(upstream, _poll_events(event))
        poll.register(client, self._poll_mask)
        while (ready := dict(poll.poll(_poll_milliseconds(end)))) or time.monotonic() < end:
            self._raise_if_ended()
            events = ready.get(client, 0)
            if events & ~select.POLLIN or (events and has_disconnected(self._client)):
                raise ClientDisconnected
            if events:  # bytes of a next request, which would end each poll at once
                self._poll_mask = POLLRDHUP
                poll.modify(client, self._poll_mask)
            if upstream in ready:
                return
        raise TimeoutError

    def close(self) -> None:
        """There is no watcher."""


def _poll_milliseconds(end: float) -> float:
    """Returns how long to poll: a request that is cancelled meanwhile is noticed afterwards."""
    return min(max(0.0, end - time.monotonic()), _POLL_SECONDS) * 1000


class _HubClient(_SocketClient):
    """For gevent: the hub watches the client, and interrupts the waiting greenlet on a disconnect."""

    def __init__(self, client: Any) -> None:
        from gevent import get_hub

        self._client, self._loop = client, get_hub().loop
        self._waiter: Any = None
        self._timer: Any = None
        self._io = self._loop.io(client.fileno(), _READ)
        self._io.start(self._ready)

    def check(self) -> None:
        self._raise_if_ended()

    def wait_for(self, call: Callable[[], T]) -> T:
        from gevent import getcurrent

        self.check()
        self._waiter = getcurrent()
        try:
            return call()
        finally:
            self._waiter = None

    def _wait(self, upstream: int, event: int, timeout: float) -> None:
        from gevent.hub import Waiter

        self.check()  # it may have disconnected while others ran
        waiter = self._waiter = Waiter()
        io, timer = self._loop.io(upstream, event), self._loop.timer(timeout)
        io.start(waiter.switch, True)
        timer.start(waiter.switch, False)
        try:
            if not waiter.get():
                raise TimeoutError
        finally:
            self._waiter = None
            _close_watcher(io)
            _close_watcher(timer)

    def _ready(self) -> None:
        self._io.stop()  # level-triggered: bytes of a next request would call this in a loop
        if has_disconnected(self._client):
            self.cancel(ClientDisconnected)
        else:
            self._timer = self._loop.timer(_POLL_SECONDS, _POLL_SECONDS)
            self._timer.start(self._probe)

    def _probe(self) -> None:
        if has_hung_up(self._client):
            self._timer.stop()
            self.cancel(ClientDisconnected)

    def cancel(self, make_error: Callable[[], BridgeError]) -> None:
        super().cancel(make_error)
        if self._waiter is not None:
            self._waiter.throw(make_error())

    def close(self) -> None:
        _close_watcher(self._io)
        if self._timer is not None:
            _close_watcher(self._timer)


def _close_watcher(watcher: Any) -> None:
    watcher.stop()
    watcher.close()


def watch(client_socket: Any) -> CancellableClient:
    """Starts to watch a client; `client_socket` is None if the server does not expose it.

    Raises ClientDisconnected.
    """
    try:
        if client_socket is None:
            return _UnwatchedClient()
        return _HubClient(client_socket) if under_gevent() else _PolledClient(client_socket)
    except (OSError, ValueError):
        raise ClientDisconnected from None  # it is closed
