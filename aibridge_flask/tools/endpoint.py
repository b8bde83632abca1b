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
from . import jsonrpc
from .deadline import Deadline
from .jsonrpc import Message, error_text

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


class _ServerTransport(NamedTuple):
    ca_file: str
    proxy: str


class SessionLost(ToolError):
    """The server no longer knows the session."""


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
            if response.status == 404 and find(session_headers, "mcp-session-id"):
                raise SessionLost("the MCP server has ended the session")
            if not 200 <= response.status < 300:
                reason = self._failure_reason(response)
                raise ToolError(self.redact(f"the MCP server answered with status {reason}"))
            yield response

    def _failure_reason(self, response: WireResponse) -> str:
        with contextlib.suppress(ToolError):
            for message in self.messages(response):
                return f"{response.status}: {error_text(message)}"
        return str(response.status)

    @contextlib.contextmanager
    def send(
        self, method: str, session_headers: HeaderList, body: bytes, deadline: Deadline, resend: bool = True
    ) -> Iterator[WireResponse]:
        """Yields a response whose head has been read, and closes it. Raises ToolError, ClientDisconnected.

        `resend`: send again if a pooled connection proves dead.
        """
        headers = [*self._headers, *session_headers]
        if body:
            headers.append(("Content-Length", str(len(body))))
        request = UpstreamRequest(method, self._url, tuple(headers), body)
        try:
            response = self._transport.send(request, deadline, resend)
        except UpstreamTimeout:
            raise ToolError(TIMED_OUT) from None
        except UpstreamError:
            raise ToolError("the MCP server could not be reached") from None
        with contextlib.closing(response):
            yield response

    def messages(self, response: WireResponse) -> Iterator[Message]:
        """Yields the JSON-RPC messages of a response. Raises ToolError, ClientDisconnected."""
        media_type = find(response.headers, "content-type").partition(";")[0].strip().lower()
        if media_type not in ("application/json", _EVENT_STREAM):
            raise ToolError("the MCP server's answer is neither JSON nor an event stream")
        try:
            yield from jsonrpc.read(response, media_type, _NO_TIMEOUT)
        except ToolError:
            raise
        except UpstreamError:
            raise ToolError("the MCP server's answer broke off") from None

    def redact(self, text: str) -> str:
        """Removes the values of configured headers: a server's message may repeat what it was sent."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "...")
        return text[:_MAX_MESSAGE_LENGTH]


def _is_local(url: str) -> bool:
    """Local servers are not reached through the configured proxy."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")
