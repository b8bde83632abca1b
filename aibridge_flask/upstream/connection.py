"""A connection to an upstream while it carries one request and its response.

Direct reads return each byte as it arrives, time out for pings, and end at once when the client disconnects.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from socket import socket
from time import monotonic
from typing import Any, cast

from urllib3.connection import HTTPConnection

from ..errors import UpstreamCut, UpstreamTimeout
from ..model import HeaderList
from ..waiting import WOULD_BLOCK, Client
from .parser import MalformedResponse, ResponseParser

_READ_BYTES = 1 << 16
_FIRST_REFUSAL = 300  # the lowest status with which a request is not done
_TRAILER_SECONDS = 0.5  # for what follows the last chunk; without it the connection is not used again


class DeadConnection(Exception):
    """The connection ended without one byte of a response."""


class WireConnection:
    """A connection while it carries one request and its response: the `raw` of a Response."""

    def __init__(
        self, conn: HTTPConnection, method: str, client: Client, put_idle: Callable[[HTTPConnection], None]
    ) -> None:
        """`put_idle` takes the connection back if it can carry another request."""
        self._conn, self._client, self._put_idle = conn, client, put_idle
        self._sock = cast(Any, conn.sock)
        self._is_plain = type(self._sock) is socket  # TLS buffers bytes outside of the socket
        self._drained = self._is_plain
        self._parser = ResponseParser(method)
        self._is_refused = self._is_sent = self._has_begun = self._closed = False

    @property
    def headers(self) -> HeaderList:
        return tuple(self._parser.headers)

    @property
    def status(self) -> int:
        return self._parser.status

    @property
    def reason(self) -> str:
        return self._parser.reason

    @property
    def complete(self) -> bool:
        """Whether the last byte of the body has been parsed."""
        return self._parser.complete

    def write(self, data: bytes, timeout: float) -> None:
        """Ignores errors, which `read_head` reports: upstreams may respond before they read the body.

        Once the upstream has refused the request, the rest of it is not sent. Raises MalformedResponse,
        TimeoutError, ClientDisconnected.
        """
        unsent, parser = memoryview(data), self._parser
        try:
            while unsent and not self._is_refused:
                heed = not parser.headers_done
                unsent = unsent[self._client.send(self._sock, unsent, timeout, heed) :]
                if unsent and heed:
                    self._read_early()
        except TimeoutError:
            raise
        except OSError:
            pass
        self._is_sent = not unsent

    def _read_early(self) -> None:
        """Reads what there is while the request is sent; with TLS that may be no bytes of a response."""
        self._drained = False
        try:
            data = self._recv(0)
        except (TimeoutError, *WOULD_BLOCK):
            return
        self._is_refused = not data
        if data:
            self._feed_head(data)
        if self._parser.headers_done:
            self._is_refused = self._parser.complete or self._parser.status >= _FIRST_REFUSAL

    def read_head(self, timeout: float) -> None:
        """Reads the head of the response.

        Raises DeadConnection, MalformedResponse, TimeoutError, ClientDisconnected.
        """
        while not self._parser.headers_done:
            try:
                data = self._recv(timeout)
            except TimeoutError:
                raise
            except OSError:
                data = b""
            if not data:
                raise MalformedResponse("the head was cut") if self._has_begun else DeadConnection
            self._feed_head(data)

    def _feed_head(self, data: bytes) -> None:
        self._has_begun = True
        self._parser.feed(data)

    def iter_body(self, idle_interval: float, read_timeout: float) -> Iterator[bytes]:
        """Yields the body as it arrives, and b"" for each `idle_interval` seconds without bytes.

        Raises UpstreamCut, UpstreamTimeout, ClientDisconnected.
        """
        parser, last_read = self._parser, monotonic()
        if piece := parser.take_body():
            yield piece
        while not parser.complete and not parser.body_ended:
            remaining = read_timeout - (monotonic() - last_read)
            if remaining <= 0:
                raise UpstreamTimeout
            try:
                self._receive(min(idle_interval, remaining))
            except TimeoutError:
                yield b""
            except UpstreamCut:
                if piece := parser.take_body():
                    yield piece
                raise
            if piece := parser.take_body():
                last_read = monotonic()
                yield piece
        self._skip_trailer()

    def _skip_trailer(self) -> None:
        """Waits a moment for what follows the last chunk. Raises ClientDisconnected."""
        end = monotonic() + _TRAILER_SECONDS
        while not self._parser.complete and (remaining := end - monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                self._receive(remaining)
        if not self._parser.complete:
            self._parser.give_up()

    def _receive(self, timeout: float) -> None:
        try:
            data = self._recv(timeout)
        except TimeoutError:
            raise
        except OSError:
            if not self._parser.give_up():
                raise UpstreamCut from None
            return
        if not data:
            if not self._parser.eof():
                raise UpstreamCut
            return
        try:
            self._parser.feed(data)
        except MalformedResponse:
            raise UpstreamCut from None

    def _recv(self, timeout: float) -> bytes:
        """A socket that returned less than requested is empty: another read would be wasted."""
        data = self._client.recv(self._sock, _READ_BYTES, timeout, self._drained)
        self._drained = self._is_plain and len(data) < _READ_BYTES
        return data

    def close(self) -> None:
        """Returns the connection to the pool if it can carry another request, else closes it."""
        if self._closed:
            return
        self._closed = True
        if self._parser.complete and self._parser.reusable and self._is_sent:
            self._put_idle(self._conn)
        else:
            with contextlib.suppress(OSError):
                self._conn.close()

    release_conn = close
