"""Sends requests to one provider. The seam where foreign exceptions become the tree's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast

import requests
from requests import PreparedRequest, Session
from requests.utils import get_environ_proxies
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ProxyError

from ..errors import (
    ClientDisconnected,
    UpstreamConnectionFailed,
    UpstreamCut,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from ..headers import HeaderMapping
from ..model import HeaderList, UpstreamRequest, UpstreamResponse
from ..waiting import Client
from .parser import MalformedResponse
from .wire import DeadConnection, WireAdapter, WireConnection

_TIMEOUTS = (TimeoutError, ConnectTimeoutError, requests.Timeout)
_FAILURES = (
    DeadConnection,
    MalformedResponse,
    OSError,
    HTTPError,
    ProxyError,
    requests.RequestException,
    UnicodeError,
)
_READ = 1 << 16


class TransportSettings(Protocol):
    """The settings of a way out, a provider's or another's."""

    @property
    def ca_file(self) -> str: ...
    @property
    def proxy(self) -> str: ...


class Sender(Protocol):
    """What sends requests; raises as `Transport` does."""

    def send(self, outgoing: UpstreamRequest, client: Client) -> UpstreamResponse: ...
    def close(self) -> None: ...


class WireResponse:
    """An upstream's answer: its head is known, its body is still to come. Of the response it keeps
    what it needs, since there may be many for long."""

    def __init__(self, response: requests.Response, read_timeout: float) -> None:
        raw: Any = response.raw
        self._raw, self._read_timeout = raw, read_timeout
        self._ours = isinstance(raw, WireConnection)
        self._ended = False
        self.status = int(response.status_code)
        self.reason = str(response.reason or "")
        self.headers: HeaderList = raw.headers if self._ours else tuple(raw.headers.items())
        self.close: Callable[[], None] = raw.close if self._ours else response.close
        """Ends the upstream's connection, or gives it back when the answer was whole."""

    @property
    def complete(self) -> bool:
        """The piece that ends the body has been given out."""
        return bool(self._raw.complete) if self._ours else self._ended

    def iter_body(self, idle_interval: float) -> Iterator[bytes]:
        """The body's bytes as they come, b"" for each `tick` seconds without any.

        Raises UpstreamCut, UpstreamTimeout, ClientGone.
        """
        return (
            cast(WireConnection, self._raw).iter_body(idle_interval, self._read_timeout)
            if self._ours
            else self._made()
        )

    def _made(self) -> Iterator[bytes]:
        """An answer that `responses` made."""
        try:
            while piece := self._raw.read1(_READ, decode_content=False):
                yield piece
        except (HTTPError, OSError):
            raise UpstreamCut from None
        self._ended = True


class Transport:
    """One provider's way out: its pool of connections, CA bundle, proxy and time-outs."""

    def __init__(self, settings: TransportSettings, base_url: str, connect: float, read: float) -> None:
        self._session = Session()
        self._session.trust_env = False
        self._adapter = WireAdapter()
        self._session.mount("http://", self._adapter)
        self._session.mount("https://", self._adapter)
        self._options = {
            "stream": True,
            "timeout": (connect, read),
            "verify": _ca_bundle(settings.ca_file),
            "proxies": _proxies(settings.proxy, base_url),
        }
        self._read_timeout = read

    def send(self, outgoing: UpstreamRequest, client: Client, again: bool = True) -> WireResponse:
        """Without `again` it is never sent twice. Raises UpstreamUnreachable, UpstreamRefused,
        UpstreamTimeout, ClientGone."""
        request = PreparedRequest()
        request.method, request.url = outgoing.method, outgoing.url
        request.headers = cast(Any, HeaderMapping(outgoing.headers))
        request.body = outgoing.body
        try:
            response = self._adapter.send(request, client=client, again=again, **self._options)
        except ClientDisconnected:
            raise
        except NewConnectionError:  # by its class a kind of time-out
            client.check()
            raise UpstreamConnectionFailed from None
        except _TIMEOUTS:
            client.check()
            raise UpstreamTimeout from None
        except _FAILURES:
            client.check()
            raise UpstreamUnreachable from None
        return WireResponse(response, self._read_timeout)

    def close(self) -> None:
        """Ends the connections that wait for a next request."""
        self._session.close()


def _ca_bundle(configured: str) -> Any:
    """The environment's CA bundle is read here, once: the session does not trust it later."""
    named = (os.environ.get("SSL_CERT_FILE"), os.environ.get("REQUESTS_CA_BUNDLE"))
    return configured or next((path for path in named if path), True)


def _proxies(configured: str, base_url: str) -> dict[str, str]:
    if configured:
        return {"http": configured, "https": configured}
    return dict(get_environ_proxies(base_url))
