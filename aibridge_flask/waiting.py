"""Waiting: for an upstream's bytes or a client that leaves, for another thread, for a slow call.

The only module that names gevent. Each thing stands here twice, for gevent and for threads;
which of the two holds is told by whether the sockets of this process are gevent's.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import os
import select
import socket
import ssl
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeVar
from weakref import WeakKeyDictionary

from .errors import ClientGone

T = TypeVar("T")
_LOOK_AGAIN = 0.5
_POLLRDHUP = getattr(select, "POLLRDHUP", 0)


def under_gevent() -> bool:
    """The process is monkey-patched."""
    monkey = sys.modules.get("gevent.monkey")
    return bool(monkey and monkey.is_module_patched("socket"))


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


class Gate(Protocol):
    """Opened once, by any thread; awaited once, by its maker."""

    def open(self) -> None: ...
    def wait(self, timeout: float) -> bool: ...


class _ThreadGate:
    def __init__(self) -> None:
        self._event = threading.Event()
        self.open, self.wait = self._event.set, self._event.wait


class _HubGate:
    """A real thread may not touch a greenlet: it rings the hub's bell."""

    def __init__(self) -> None:
        from gevent import get_hub
        from gevent.event import Event

        self.event = Event()
        self.bell = _bell(get_hub())

    def open(self) -> None:
        self.bell.ring([self])

    def wait(self, timeout: float) -> bool:
        return bool(self.event.wait(timeout))


class _Bell:
    """Wakes a hub from other threads. One watcher for as long as the hub lives: libev's own way, and
    the only one that counts right with threads (`run_callback_threadsafe` does not)."""

    def __init__(self, hub: Any) -> None:
        self._opened: deque[_HubGate] = deque()
        self._watcher = hub.loop.async_()
        self._watcher.start(self._answer)

    def ring(self, gates: list[_HubGate]) -> None:
        self._opened.extend(gates)
        self._watcher.send()

    def _answer(self) -> None:
        while self._opened:
            self._opened.popleft().event.set()


_bells: WeakKeyDictionary[Any, _Bell] = WeakKeyDictionary()


def _bell(hub: Any) -> _Bell:
    if hub not in _bells:
        _bells[hub] = _Bell(hub)
    return _bells[hub]


def gate() -> Gate:
    """A gate for the calling thread or greenlet."""
    return _HubGate() if under_gevent() else _ThreadGate()


def open_gates(gates: list[Gate]) -> None:
    """Opens the gates of one process, with one wake-up of the hub for all of them."""
    in_hub = [one for one in gates if isinstance(one, _HubGate)]
    if in_hub:
        in_hub[0].bell.ring(in_hub)
    for one in gates:
        if not isinstance(one, _HubGate):
            one.open()


def soon(call: Callable[[], None]) -> None:
    """gevent alone: calls once the hub has run what is ready."""
    from gevent import get_hub

    get_hub().loop.run_callback(call)


def has_news(descriptor: int) -> bool:
    """Something stands in a socket, or it has ended; asked without waiting."""
    return _polled(descriptor, select.POLLIN)


def _polled(descriptor: int, events: int) -> bool:
    poll = _original("select", "poll")()
    poll.register(descriptor, events)
    return bool(poll.poll(0))


def _original(module: str, name: str) -> Any:
    if under_gevent():
        from gevent.monkey import get_original

        return get_original(module, name)
    return getattr(sys.modules[module], name)


def start_thread(run: Callable[[], None]) -> Callable[[float], bool]:
    """Runs `run` in a real thread, also under gevent; gives back a join that takes seconds."""
    done = _original("_thread", "allocate_lock")()
    done.acquire()

    def body() -> None:
        try:
            run()
        finally:
            done.release()

    _original("_thread", "start_new_thread")(body, ())
    return lambda timeout: bool(done.acquire(timeout=timeout))


def aside(call: Callable[[], T]) -> T:
    """Runs a call that blocks its thread without stalling anybody else: under gevent in the
    hub's thread pool, else right here."""
    if not under_gevent():
        return call()
    from gevent import get_hub

    result: T = get_hub().threadpool.apply(call)
    return result
