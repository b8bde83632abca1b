"""Sends requests to one upstream, and translates the libraries' exceptions into ours."""

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
from ..model import HeaderList, UpstreamRequest
from ..protocols import UpstreamResponse
from ..waiting import Client
from .connection import DeadConnection, WireConnection
from .parser import MalformedResponse
from .wire import WireAdapter

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
_READ_BYTES = 1 << 16


class TransportSettings(Protocol):
    """The settings of a transport."""

    @property
    def ca_file(self) -> str: ...
    @property
    def proxy(self) -> str: ...


class Sender(Protocol):
    """Sends requests; raises the same errors as `Transport`."""

    def send(self, request: UpstreamRequest, client: Client) -> UpstreamResponse: ...
    def close(self) -> None: ...


class WireResponse:
    """A response whose head has been read.

    It keeps only what it needs of the `requests.Response`: many responses may be open for a long time.
    """

    def __init__(self, response: requests.Response, read_timeout: float) -> None:
        raw: Any = response.raw
        self._raw, self._read_timeout = raw, read_timeout
        self._is_wire = isinstance(raw, WireConnection)
        self._ended = False
        self.status = int(response.status_code)
        self.reason = str(response.reason or "")
        self.headers: HeaderList = raw.headers if self._is_wire else tuple(raw.headers.items())
        self.close: Callable[[], None] = raw.close if self._is_wire else response.close
        """Closes the connection, or returns it to the pool if the response was complete."""

    @property
    def complete(self) -> bool:
        """Whether the last piece of the body has been yielded."""
        return bool(self._raw.complete) if self._is_wire else self._ended

    def iter_body(self, idle_interval: float) -> Iterator[bytes]:
        """Yields the body as it arrives, and b"" for each `idle_interval` seconds without bytes.

        Raises UpstreamCut, UpstreamTimeout, ClientDisconnected.
        """
        return (
            cast(WireConnection, self._raw).iter_body(idle_interval, self._read_timeout)
            if self._is_wire
            else self._iter_mocked()
        )

    def _iter_mocked(self) -> Iterator[bytes]:
        """Yields the body of a response that the library `responses` made."""
        try:
            while piece := self._raw.read1(_READ_BYTES, decode_content=False):
                yield piece
        except (HTTPError, OSError):
            raise UpstreamCut from None
        self._ended = True


class Transport:
    """The connection pool, CA bundle, proxy and time-outs (in seconds) of one upstream."""

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

    def send(self, request: UpstreamRequest, client: Client, resend: bool = True) -> WireResponse:
        """Sends a request and reads the head of the response.

        `resend`: send again if a pooled connection proves dead. Raises UpstreamUnreachable,
        UpstreamConnectionFailed, UpstreamTimeout, ClientDisconnected.
        """
        prepared = PreparedRequest()
        prepared.method, prepared.url = request.method, request.url
        prepared.headers = cast(Any, HeaderMapping(request.headers))
        prepared.body = request.body
        try:
            response = self._adapter.send(prepared, client=client, resend=resend, **self._options)
        except ClientDisconnected:
            raise
        except NewConnectionError:  # a subclass of a time-out
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
        """Closes idle connections."""
        self._session.close()


def _ca_bundle(configured: str) -> Any:
    """Returns the CA bundle. The environment is read here, once: the session does not trust it later."""
    named = (os.environ.get("SSL_CERT_FILE"), os.environ.get("REQUESTS_CA_BUNDLE"))
    return configured or next((path for path in named if path), True)


def _proxies(configured: str, base_url: str) -> dict[str, str]:
    if configured:
        return {"http": configured, "https": configured}
    return dict(get_environ_proxies(base_url))
