"""An adapter for `requests` that writes requests to the socket and reads responses from it directly.

Connecting, TLS and proxies are urllib3's. Direct reads return each byte as it arrives, time out for pings,
and end at once when the client disconnects.
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

_READ_BYTES = 1 << 16
_MAX_IDLE_SECONDS = 30.0


class DeadConnection(Exception):
    """The connection ended without one byte of a response."""


class WireConnection:
    """A connection while it carries one request and its response: the `raw` of a Response."""

    def __init__(self, origin: Origin, conn: HTTPConnection, method: str, client: Client) -> None:
        self._origin, self._conn, self._client = origin, conn, client
        self._sock = cast(Any, conn.sock)
        self._is_plain = type(self._sock) is socket  # TLS buffers bytes outside of the socket
        self._drained = self._is_plain
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
        """Whether the last byte of the body has been parsed."""
        return self._parser.complete

    def write(self, data: bytes, timeout: float) -> None:
        """Ignores errors: upstreams may respond before they read the body. `read_head` reports failures."""
        try:
            self._client.send(self._sock, data, timeout)
        except TimeoutError:
            raise
        except OSError:
            return

    def read_head(self, timeout: float) -> None:
        """Reads the head of the response.

        Raises DeadConnection, MalformedResponse, TimeoutError, ClientDisconnected.
        """
        parser, is_first = self._parser, True
        while not parser.headers_done:
            try:
                data = self._recv(timeout)
            except TimeoutError:
                raise
            except OSError:
                data = b""
            if not data:
                raise DeadConnection if is_first else MalformedResponse("the head was cut")
            is_first = False
            parser.feed(data)

    def iter_body(self, idle_interval: float, read_timeout: float) -> Iterator[bytes]:
        """Yields the body as it arrives, and b"" for each `idle_interval` seconds without bytes.

        Raises UpstreamCut, UpstreamTimeout, ClientDisconnected.
        """
        parser, last_read = self._parser, monotonic()
        if piece := parser.take_body():
            yield piece
        while not parser.complete:
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
        """A socket that returned less than requested is empty: another read would be wasted."""
        data = self._client.recv(self._sock, _READ_BYTES, timeout, self._drained)
        self._drained = self._is_plain and len(data) < _READ_BYTES
        return data

    def close(self) -> None:
        """Returns the connection to the pool if it can carry another request, else closes it."""
        if self._closed:
            return
        self._closed = True
        if self._parser.complete and self._parser.reusable:
            self._origin.put_idle(self._conn)
        else:
            with contextlib.suppress(OSError):
                self._conn.close()

    release_conn = close


class WireAdapter(HTTPAdapter):
    """Sends a PreparedRequest as it is, without redirects, cookies or headers of its own.

    `client`, if given, is watched while waiting for the response.
    """

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
        resend: bool = True,
    ) -> Response:
        """Returns a Response whose `raw` is a WireConnection; its head has been read, its body has not.

        `timeout`: seconds to connect, and seconds without a byte. `resend`: a pooled connection that proves
        dead is replaced and the request sent again. Raises DeadConnection, MalformedResponse, TimeoutError,
        ClientDisconnected and urllib3's connection errors.
        """
        url = str(request.url)
        origin = self._origin(request, url, verify, cert, proxies)
        data = _request_bytes(request, origin, url)
        wire, reused = _open(origin, timeout[0], str(request.method), client)
        try:
            _exchange(wire, data, timeout[1])
        except DeadConnection:
            if not (reused and resend):
                raise
            wire, _ = _open(origin, timeout[0], str(request.method), client, fresh=True)
            _exchange(wire, data, timeout[1])
        request.body = None  # it may be large, and the response may last long
        return _response(request, wire)

    def close(self) -> None:
        """Closes idle connections."""
        for origin in self._origins.values():
            while origin.idle:
                origin.idle.pop().close()
        super().close()

    def _origin(self, request: PreparedRequest, url: str, verify: Any, cert: Any, proxies: Any) -> Origin:
        """Looks the pool up once: an adapter serves one provider, whose CA bundle and proxy never change."""
        origin_url = "/".join(url.split("/", 3)[:3])
        origin = self._origins.get(origin_url)
        if origin is None:
            pool: Any = self.get_connection_with_tls_context(request, verify, proxies, cert)
            cast(Any, self).cert_verify(pool, url, verify, cert)
            proxied = pool.proxy is not None and pool.scheme == "http"
            headers = tuple(pool.proxy_headers.items()) if proxied else ()
            new = Origin(pool, "" if proxied else origin_url, headers)
            origin = self._origins.setdefault(origin_url, new)  # another thread may have been first
        return origin


@dataclass(frozen=True, slots=True)
class Origin:
    """The scheme, host and port that requests go to, with its idle connections.

    `pool` is urllib3's and creates connections. `url_prefix` is the part of a URL that is not sent. `headers`
    are for a proxy that takes absolute URLs.
    """

    pool: Any
    url_prefix: str
    headers: HeaderList
    idle: list[Any] = field(default_factory=list)

    def put_idle(self, conn: Any) -> None:
        """The newest connection is reused first, so the oldest ones are surplus and are closed."""
        conn.idle_since = now = monotonic()
        self.idle.append(conn)
        for oldest in self.idle[:1]:
            if now - oldest.idle_since > _MAX_IDLE_SECONDS:
                with contextlib.suppress(ValueError):  # another thread took it
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
    """Returns an idle or a new connection, and whether it was used before.

    An idle connection that is too old, or readable, may be dead and is replaced.
    """
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
    return bool(monotonic() - conn.idle_since > _MAX_IDLE_SECONDS or conn.is_readable())


def _connect(pool: Any, conn: Any, timeout: float) -> None:
    conn.timeout = timeout
    if pool.proxy is not None and pool.scheme == "https":
        pool._prepare_proxy(conn)
    else:
        conn.connect()
    conn.is_readable = readiness_probe(conn.sock)


def _request_bytes(request: PreparedRequest, origin: Origin, url: str) -> bytes:
    lines = [f"{request.method} {url.removeprefix(origin.url_prefix)} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in (*request.headers.items(), *origin.headers)]
    head = "\r\n".join([*lines, "\r\n"]).encode("latin-1")
    return head + cast(bytes, request.body) if request.body else head


_EMPTY_RESPONSE = vars(Response())


def _response(request: PreparedRequest, wire: WireConnection) -> Response:
    """All responses share one empty cookie jar: creating one costs as much as sending the request."""
    response = Response.__new__(Response)
    members = {"status_code": wire.status, "reason": wire.reason, "raw": wire, "request": request}
    vars(response).update(_EMPTY_RESPONSE, headers=HeaderMapping(wire.headers), **members)
    return response
