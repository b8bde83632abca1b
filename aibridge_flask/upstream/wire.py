"""An adapter for `requests` that writes requests to the socket and reads responses from it directly.

Connecting, TLS and proxies are urllib3's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter

from ..headers import HeaderMapping
from ..model import HeaderList
from ..waiting import UNWATCHED, Client, readiness_probe
from .connection import DeadConnection, WireConnection
from .idle import IdleConnections, is_stale
from .keepalive import socket_options

_COPIED_BYTES = 1 << 16


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
            origin.idle.close()
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
    idle: IdleConnections = field(default_factory=IdleConnections)


def _exchange(wire: WireConnection, data: tuple[bytes, ...], read_timeout: float) -> None:
    try:
        for piece in data:
            wire.write(piece, read_timeout)
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
    conn = origin.idle.take()
    if conn is None:
        conn = origin.pool._new_conn()
        conn.socket_options = [*conn.socket_options, *socket_options()]
    if conn.sock is not None and (fresh or is_stale(conn)):
        conn.close()
    reused = conn.sock is not None
    if not reused:
        try:
            client.wait_for(lambda: _connect(origin.pool, conn, connect_timeout))
        except BaseException:
            conn.close()
            raise
    return WireConnection(conn, method, client, origin.idle.put), reused


def _connect(pool: Any, conn: Any, timeout: float) -> None:
    conn.timeout = timeout
    if pool.proxy is not None and pool.scheme == "https":
        pool._prepare_proxy(conn)
    else:
        conn.connect()
    conn.is_readable = readiness_probe(conn.sock)


def _request_bytes(request: PreparedRequest, origin: Origin, url: str) -> tuple[bytes, ...]:
    """Returns head and body: together, unless the body is so large that a copy of it would matter."""
    lines = [f"{request.method} {url.removeprefix(origin.url_prefix)} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in (*request.headers.items(), *origin.headers)]
    head, body = "\r\n".join([*lines, "\r\n"]).encode("latin-1"), cast(bytes, request.body or b"")
    return (head, body) if len(body) > _COPIED_BYTES else (head + body,)


_EMPTY_RESPONSE = vars(Response())


def _response(request: PreparedRequest, wire: WireConnection) -> Response:
    """All responses share one empty cookie jar: creating one costs as much as sending the request."""
    response = Response.__new__(Response)
    members = {"status_code": wire.status, "reason": wire.reason, "raw": wire, "request": request}
    vars(response).update(_EMPTY_RESPONSE, headers=HeaderMapping(wire.headers), **members)
    return response
