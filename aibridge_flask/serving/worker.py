"""gunicorn's gevent worker, with a drain that loses no request."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import select
from functools import partial
from typing import Any

import gevent
import gevent.socket
from gevent import monkey
from gevent.server import StreamServer
from gunicorn import util
from gunicorn.http import RequestParser, wsgi
from gunicorn.http.errors import NoMoreData, ParseException
from gunicorn.workers.ggevent import GeventWorker

from ..headers import mask_tokens
from .http import OneWriteResponse, UsualRequest, http_date

_FIRST_REQUEST_SECONDS = 2.0  # how long a client that has just connected may take to send its request
_M_MMAP_THRESHOLD, _MAPPED_BYTES = -3, 4 << 20  # of glibc's mallopt: blocks as large are mapped
_OWN_WORDS = ("msg", "reason", "info")  # of gunicorn's errors
_Waiting = dict[Any, Any]  # connections without a request, with their greenlets


class Connection(gevent.socket.socket):  # type: ignore[misc]
    """A client's connection. Most data fits into the socket's buffer, whose size gevent queries each time."""

    __slots__ = ()

    def sendall(self, data: Any, flags: int = 0) -> None:
        try:
            sent = self._sock.send(data, flags)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            super().sendall(memoryview(data)[sent:], flags)


class Listener(StreamServer):  # type: ignore[misc]
    """Accepts what waits before it closes: the system resets connections that nobody has accepted."""

    def close(self) -> None:
        while not self.closed and not self.full() and (accepted := self.do_read()):
            self.do_handle(*accepted)
        super().close()


class Address:
    """A listening socket's address, which connections ask for also when the socket is closed."""

    def __init__(self, listener: Any) -> None:
        self._name = listener.getsockname()

    def getsockname(self) -> Any:
        return self._name


class DrainingWorker(GeventWorker):  # type: ignore[misc]
    """A worker that drains before it stops.

    First it reports that it is not ready, so that proxies go elsewhere, and says with each response that it
    closes the connection: who keeps connections must not choose one while it is closed. Then it stops
    accepting, closes idle connections, which gunicorn would keep for `keepalive` seconds, and lets requests
    finish.
    """

    is_draining = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for log in (self.log.error_log, self.log.access_log):
            log.addFilter(_hide_secrets)
        self.new: _Waiting = {}
        self.between_requests: _Waiting = {}

    def init_process(self) -> None:
        _map_large_blocks()
        super().init_process()

    def patch(self) -> None:
        super().patch()
        RequestParser.mesg_class, wsgi.Response = UsualRequest, OneWriteResponse
        util.http_date = http_date

    def server_class(self, listener: Any, spawn: Any, ssl_context: Any = None, **_: Any) -> Listener:
        """gunicorn calls it for each listening socket."""
        tls = {"ssl_context": ssl_context} if ssl_context else {}
        server = Listener(listener, handle=partial(self.handle, Address(listener)), spawn=spawn, **tls)
        if self.cfg.workers > 1:
            server.max_accept = 1
        return server

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        if type(client) is gevent.socket.socket:  # not a TLS socket
            client = Connection(client.family, client.type, client.proto, client.detach())
        self.new[client] = gevent.getcurrent()
        try:
            super().handle(listener, client, addr)
        finally:
            self._not_waiting(client)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        self._not_waiting(sock)
        if self.is_draining:
            req.force_close()
        super().handle_request(listener_name, req, sock, addr)
        if not self.alive:
            raise StopIteration  # gunicorn closes the connection
        self.between_requests[sock] = gevent.getcurrent()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        _hide_contents(exc)
        super().handle_error(req, client, addr, exc)

    def _not_waiting(self, client: Any) -> None:
        self.new.pop(client, None)
        self.between_requests.pop(client, None)

    def handle_exit(self, sig: int, frame: Any) -> None:
        gevent.spawn(self.drain)

    def drain(self) -> None:
        """Stops the worker."""
        self.is_draining = True
        bridge = getattr(self.wsgi, "extensions", {}).get("aibridge")
        if self.alive and bridge is not None:
            gevent.sleep(bridge.drain(self.wsgi))
        self.alive: bool = False
        run_in_hub = gevent.get_hub().loop.run_callback  # so that no request arrives between poll and close
        run_in_hub(_close_idle, self.between_requests)
        gevent.sleep(_FIRST_REQUEST_SECONDS)
        run_in_hub(_close_idle, self.new)


def _map_large_blocks() -> None:
    """Has glibc map large blocks. Else it comes to keep them for the thread that had them, and clears one at
    once when it is used again, which holds up other threads.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)


def _hide_contents(error: object) -> None:
    """Takes out of an error what gunicorn could not read, and would log and send back: it may be a secret."""
    if isinstance(error, (ParseException, NoMoreData)):
        for name, value in vars(error).items():
            if isinstance(value, (str, bytes)) and name not in _OWN_WORDS:
                setattr(error, name, "...")


def _hide_secrets(record: logging.LogRecord) -> bool:
    for value in record.args if isinstance(record.args, tuple) else ():
        _hide_contents(value)
    text = record.getMessage()
    masked = mask_tokens(text)
    if masked != text:  # else a formatter may use the arguments
        record.msg, record.args = masked, ()
    return True


def _close_idle(waiting: _Waiting) -> None:
    """Closes the connections on which no request has arrived."""
    for client, greenlet in list(waiting.items()):
        poll = monkey.get_original("select", "poll")()
        poll.register(client, select.POLLIN)
        if not poll.poll(0):
            greenlet.throw(ConnectionResetError(errno.ECONNRESET, "draining"))
