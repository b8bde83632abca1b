"""The requests adapter that writes the request and reads the answer off the socket itself.

Connecting, TLS, proxies and the pool are urllib3's. Reading the socket ourselves gives each byte
as it comes, pings by a read that timed out, and a client's leaving at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from socket import socket
from time import monotonic
from typing import Any, cast

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection

from ..errors import UpstreamCut, UpstreamTimeout
from ..headers import HeaderMapping
from ..model import HeaderList
from ..waiting import UNWATCHED, Client, readiness_probe
from .parser import MalformedResponse, ResponseParser

_READ = 1 << 16
_IDLE_LIMIT = 30.0


class DeadConnection(Exception):
    """A connection ended without one byte of an answer."""


class WireConnection:
    """A connection while it carries one request and its answer: the `raw` of a Response."""

    def __init__(self, origin: Origin, conn: HTTPConnection, method: str, client: Client) -> None:
        self._origin, self._conn, self._client = origin, conn, client
        self._sock = cast(Any, conn.sock)
        self._plain = type(self._sock) is socket  # TLS keeps bytes that no longer stand in the socket
        self._dry = self._plain
        self._parser = ResponseParser(method)
        self._closed = False

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
        """The body's last byte has been taken."""
        return self._parser.complete

    def write(self, data: bytes, timeout: float) -> None:
        """A send that fails is told by the answer that follows, if there is one: upstreams
        refuse a body before they have read it."""
        try:
            self._client.send(self._sock, data, timeout)
        except TimeoutError:
            raise
        except OSError:
            return

    def read_head(self, timeout: float) -> None:
        """Reads up to the end of the head. Raises DeadConnection, MalformedAnswer, TimeoutError,
        ClientGone."""
        parser, virgin = self._parser, True
        while not parser.headers_done:
            try:
                data = self._recv(timeout)
            except TimeoutError:
                raise
            except OSError:
                data = b""
            if not data:
                raise DeadConnection if virgin else MalformedResponse("the head was cut")
            virgin = False
            parser.feed(data)

    def iter_body(self, idle_interval: float, read_timeout: float) -> Iterator[bytes]:
        """The body as it comes; b"" each `tick` seconds in which nothing came.

        Raises UpstreamCut, UpstreamTimeout, ClientGone.
        """
        parser, since = self._parser, monotonic()
        if piece := parser.take():
            yield piece
        while not parser.complete:
            left = read_timeout - (monotonic() - since)
            if left <= 0:
                raise UpstreamTimeout
            try:
                self._receive(min(idle_interval, left))
            except TimeoutError:
                yield b""
            except UpstreamCut:
                if piece := parser.take():
                    yield piece
                raise
            if piece := parser.take():
                since = monotonic()
                yield piece

    def _receive(self, timeout: float) -> None:
        try:
            data = self._recv(timeout)
        except TimeoutError:
            raise
        except OSError:
            raise UpstreamCut from None
        if not data:
            if not self._parser.eof():
                raise UpstreamCut
            return
        try:
            self._parser.feed(data)
        except MalformedResponse:
            raise UpstreamCut from None

    def _recv(self, timeout: float) -> bytes:
        """A socket that gave less than it was asked for has no more; looking would cost as much again."""
        data = self._client.recv(self._sock, _READ, timeout, self._dry)
        self._dry = self._plain and len(data) < _READ
        return data

    def close(self) -> None:
        """Gives the connection back if it can carry another request, else ends it."""
        if self._closed:
            return
        self._closed = True
        if self._parser.complete and self._parser.reusable:
            self._origin.keep(self._conn)
        else:
            with contextlib.suppress(OSError):
                self._conn.close()

    release_conn = close


class WireAdapter(HTTPAdapter):
    """Sends a PreparedRequest as it stands, and no more: no redirects, cookies or headers of
    its own. `client`, if given, is watched while waiting for the answer."""

    def __init__(self) -> None:
        super().__init__()
        self._origins: dict[str, Origin] = {}

    def send(  # type: ignore[override]
        self,
        request: PreparedRequest,
        stream: bool = True,
        timeout: tuple[float, float] = (10.0, 600.0),
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
        client: Client = UNWATCHED,
        again: bool = True,
    ) -> Response:
        """A Response whose `raw` is a Wire, with its head read; its body is still to come.
        `again`: a pooled connection that proves dead is replaced, and the request sent twice.

        `timeout` is seconds to connect and seconds without a byte. Raises DeadConnection,
        MalformedAnswer, TimeoutError, ClientGone and what urllib3 raises on connecting.
        """
        url = str(request.url)
        origin = self._origin(request, url, verify, cert, proxies)
        data = _request_bytes(request, origin, url)
        wire, reused = _open(origin, timeout[0], str(request.method), client)
        try:
            _exchange(wire, data, timeout[1])
        except DeadConnection:
            if not (reused and again):
                raise
            wire, _ = _open(origin, timeout[0], str(request.method), client, fresh=True)
            _exchange(wire, data, timeout[1])
        request.body = None  # it may be large, and the answer long
        return _response(request, wire)

    def close(self) -> None:
        """Ends the connections that wait."""
        for origin in self._origins.values():
            while origin.idle:
                origin.idle.pop().close()
        super().close()

    def _origin(self, request: PreparedRequest, url: str, verify: Any, cert: Any, proxies: Any) -> Origin:
        """One adapter serves one provider, whose CA bundle and proxy stay the same, so that the
        search for its pool is made once."""
        start = "/".join(url.split("/", 3)[:3])
        origin = self._origins.get(start)
        if origin is None:
            pool: Any = self.get_connection_with_tls_context(request, verify, proxies, cert)
            cast(Any, self).cert_verify(pool, url, verify, cert)
            proxied = pool.proxy is not None and pool.scheme == "http"
            headers = tuple(pool.proxy_headers.items()) if proxied else ()
            made = Origin(pool, "" if proxied else start, headers)
            origin = self._origins.setdefault(start, made)  # another thread may have been faster
        return origin


@dataclass(frozen=True, slots=True)
class Origin:
    """Where requests go: urllib3's pool, which makes connections, those that wait for a next request, what
    of a URL is not said on the wire, and what a proxy that takes whole URLs wants to be told."""

    pool: Any
    unsaid: str
    headers: HeaderList
    idle: list[Any] = field(default_factory=list)

    def keep(self, conn: Any) -> None:
        """The newest is taken first, so that the oldest are those that nobody needs any more."""
        conn.idle_since = now = monotonic()
        self.idle.append(conn)
        for oldest in self.idle[:1]:
            if now - oldest.idle_since > _IDLE_LIMIT:
                with contextlib.suppress(ValueError):  # another thread has just taken it
                    self.idle.remove(oldest)
                    oldest.close()


def _exchange(wire: WireConnection, data: bytes, read_timeout: float) -> None:
    try:
        wire.write(data, read_timeout)
        wire.read_head(read_timeout)
    except BaseException:
        wire.close()
        raise


def _open(
    origin: Origin, connect_timeout: float, method: str, client: Client, fresh: bool = False
) -> tuple[WireConnection, bool]:
    """A connection that has waited, or a new one; the flag tells that it has served before. One
    that was idle for long may be dead at the other end without our knowing."""
    try:
        conn = origin.idle.pop()
    except IndexError:
        conn = origin.pool._new_conn()
    if conn.sock is not None and (fresh or _is_stale(conn)):
        conn.close()
    reused = conn.sock is not None
    if not reused:
        try:
            client.wait_for(lambda: _connect(origin.pool, conn, connect_timeout))
        except BaseException:
            conn.close()
            raise
    return WireConnection(origin, conn, method, client), reused


def _is_stale(conn: Any) -> bool:
    return bool(monotonic() - conn.idle_since > _IDLE_LIMIT or conn.has_news())


def _connect(pool: Any, conn: Any, timeout: float) -> None:
    conn.timeout = timeout
    if pool.proxy is not None and pool.scheme == "https":
        pool._prepare_proxy(conn)
    else:
        conn.connect()
    conn.has_news = readiness_probe(conn.sock)


def _request_bytes(request: PreparedRequest, origin: Origin, url: str) -> bytes:
    lines = [f"{request.method} {url.removeprefix(origin.unsaid)} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in (*request.headers.items(), *origin.headers)]
    head = "\r\n".join([*lines, "\r\n"]).encode("latin-1")
    return head + cast(bytes, request.body) if request.body else head


_BLANK = vars(Response())


def _response(request: PreparedRequest, wire: WireConnection) -> Response:
    """All share one empty cookie jar: making it would cost as much as sending the request."""
    response = Response.__new__(Response)
    known = {"status_code": wire.status, "reason": wire.reason, "raw": wire, "request": request}
    vars(response).update(_BLANK, headers=HeaderMapping(wire.headers), **known)
    return response
