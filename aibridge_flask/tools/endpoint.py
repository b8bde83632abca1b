"""HTTP requests to one MCP server, under a deadline.

Every failure becomes a ToolError, without the values of configured headers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from ..config.settings import McpServerSettings, Settings
from ..errors import ToolError, UpstreamError, UpstreamTimeout
from ..headers import find
from ..model import HeaderList, UpstreamRequest
from ..upstream.transport import Transport, WireResponse
from . import jsonrpc, redirects
from .deadline import Deadline
from .jsonrpc import Message, error_code, error_text
from .reading import UNLIMITED, Bookmark, Budget

TIMED_OUT = "the MCP server did not answer in time"
_EVENT_STREAM = "text/event-stream"
_OWN_HEADERS = (
    ("User-Agent", "aibridge"),
    ("Accept", f"application/json, {_EVENT_STREAM}"),
    ("Accept-Encoding", "identity"),
    ("Content-Type", "application/json"),
)
_NO_TIMEOUT = 3600.0  # seconds; the deadline ends earlier
_MAX_MESSAGE_LENGTH = 1000
_REFUSALS = (400, 404, 405, 406, 415, 422, 501)
_ABOUT_THE_MESSAGE = (-32700, -32601, -32602)  # JSON-RPC: malformed, unknown method, invalid parameters


class _ServerTransport(NamedTuple):
    ca_file: str
    proxy: str


class Refused(ToolError):
    """The server does not take the message. Others that it takes may exist."""


class SessionLost(Refused):
    """The server no longer knows the session."""


class StreamCut(ToolError):
    """The connection ended before the response did."""


class Endpoint:
    """The HTTP endpoint of a server. `session_headers` are those of an MCP session."""

    def __init__(self, server: McpServerSettings, settings: Settings) -> None:
        self._url = server.url
        configured = tuple((name, secret.value) for name, secret in server.headers.items())
        names = {name.lower() for name, _ in configured}
        own = (("Host", urlsplit(server.url).netloc), *_OWN_HEADERS)
        self._headers = (*(field for field in own if field[0].lower() not in names), *configured)
        self._secrets = {part for _, value in configured for part in (value, *value.split()) if len(part) > 3}
        connect_timeout = min(settings.connect_timeout, settings.mcp.tool_timeout)
        transport = _ServerTransport(settings.ca_file, "" if _is_local(server.url) else settings.proxy)
        self._transport = Transport(transport, server.url, connect_timeout, _NO_TIMEOUT)

    def close(self) -> None:
        """Closes idle connections."""
        self._transport.close()

    @contextlib.contextmanager
    def post(
        self, session_headers: HeaderList, body: bytes, deadline: Deadline, resend: bool = True
    ) -> Iterator[WireResponse]:
        """Sends a message; yields a successful response. Raises ToolError, ClientDisconnected."""
        with self.send("POST", session_headers, body, deadline, resend) as response:
            if not 200 <= response.status < 300:
                raise self._failure(response, bool(find(session_headers, "mcp-session-id")))
            yield response

    def _failure(self, response: WireResponse, in_session: bool) -> ToolError:
        """Many servers tell by a 400 that they do not know the session, with words and codes of their own."""
        error, status = self._error(response), response.status
        if in_session and status == 404 and error_code(error) not in _ABOUT_THE_MESSAGE:
            return SessionLost("the MCP server has ended the session")
        reason = f"{status}: {error_text(error)}" if error else str(status)
        text = self.redact(f"the MCP server answered with status {reason}")
        if in_session and status == 400 and error_code(error) not in _ABOUT_THE_MESSAGE:
            return SessionLost(text)
        return Refused(text) if status in _REFUSALS else ToolError(text)

    def _error(self, response: WireResponse) -> Message:
        with contextlib.suppress(ToolError):
            for message in self.messages(response, Bookmark(), UNLIMITED):
                return message
        return {}

    @contextlib.contextmanager
    def send(
        self, method: str, session_headers: HeaderList, body: bytes, deadline: Deadline, resend: bool = True
    ) -> Iterator[WireResponse]:
        """Yields a response whose head has been read, and closes it. Raises ToolError, ClientDisconnected.

        `resend`: send again if a pooled connection proves dead.
        """
        url = self._url
        for _ in range(redirects.MAX_REDIRECTS + 1):
            headers = (*self._headers, *session_headers)
            request = UpstreamRequest(method, url, (*headers, *_length(body)), body)
            with contextlib.closing(self._exchange(request, deadline, resend)) as response:
                is_redirect = response.status in redirects.STATUSES
                url = redirects.target(url, find(response.headers, "location")) if is_redirect else ""
                if not url:
                    yield response
                    return
                if response.status == redirects.SEE_OTHER:
                    method, body = "GET", b""
        raise ToolError("the MCP server redirects without end")

    def _exchange(self, request: UpstreamRequest, deadline: Deadline, resend: bool) -> WireResponse:
        try:
            return self._transport.send(request, deadline, resend)
        except UpstreamTimeout:
            raise ToolError(TIMED_OUT) from None
        except UpstreamError:
            raise ToolError("the MCP server could not be reached") from None

    def messages(self, response: WireResponse, bookmark: Bookmark, budget: Budget) -> Iterator[Message]:
        """Yields the JSON-RPC messages of a response. Raises ToolError, ClientDisconnected."""
        media_type = find(response.headers, "content-type").partition(";")[0].strip().lower()
        if media_type not in ("application/json", _EVENT_STREAM):
            raise Refused("the MCP server's answer is neither JSON nor an event stream")
        try:
            yield from jsonrpc.read(response, media_type, _NO_TIMEOUT, bookmark, budget)
        except ToolError:
            raise
        except UpstreamError:
            raise StreamCut("the MCP server's answer broke off") from None

    def redact(self, text: str) -> str:
        """Shortens a server's message, and removes the values of configured headers."""
        return self.without_secrets(text)[:_MAX_MESSAGE_LENGTH]

    def without_secrets(self, text: str) -> str:
        """Removes the values of configured headers: a server may repeat what it was sent."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "...")
        return text


def _length(body: bytes) -> HeaderList:
    return (("Content-Length", str(len(body))),) if body else ()


def _is_local(url: str) -> bool:
    """Local servers are not reached through the configured proxy."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")
