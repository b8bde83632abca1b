"""Where one MCP server is reached: HTTP there and back, under a deadline.

Whatever fails becomes a ToolError here, and what was configured as a header stays out of it.
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
_STREAM = "text/event-stream"
_OWN_HEADERS = (
    ("User-Agent", "aibridge"),
    ("Accept", f"application/json, {_STREAM}"),
    ("Accept-Encoding", "identity"),
    ("Content-Type", "application/json"),
)
_NEVER = 3600.0  # the deadline counts
_TEXT_LIMIT = 1000


class _ServerTransport(NamedTuple):
    ca_file: str
    proxy: str


class SessionLost(ToolError):
    """The server does not know the session any more."""


class Endpoint:
    """`agreed` are the headers of a session."""

    def __init__(self, server: McpServerSettings, settings: Settings) -> None:
        self._url = server.url
        configured = tuple((name, secret.value) for name, secret in server.headers.items())
        named = {name.lower() for name, _ in configured}
        own = (("Host", urlsplit(server.url).netloc), *_OWN_HEADERS)
        self._headers = (*(one for one in own if one[0].lower() not in named), *configured)
        self._secrets = {part for _, value in configured for part in (value, *value.split()) if len(part) > 3}
        connect = min(settings.connect_timeout, settings.mcp.tool_timeout)
        way = _ServerTransport(settings.ca_file, "" if _is_local(server.url) else settings.proxy)
        self._transport = Transport(way, server.url, connect, _NEVER)

    def close(self) -> None:
        """Ends the connections that wait for a next request."""
        self._transport.close()

    @contextlib.contextmanager
    def post(
        self, session_headers: HeaderList, body: bytes, way: Deadline, again: bool = True
    ) -> Iterator[WireResponse]:
        with self.send("POST", session_headers, body, way, again) as answer:
            if answer.status == 404 and find(session_headers, "mcp-session-id"):
                raise SessionLost("the MCP server has ended the session")
            if not 200 <= answer.status < 300:
                raise ToolError(self.redact(f"the MCP server answered with status {self._refusal(answer)}"))
            yield answer

    def _refusal(self, answer: WireResponse) -> str:
        with contextlib.suppress(ToolError):
            for message in self.messages(answer):
                return f"{answer.status}: {error_text(message)}"
        return str(answer.status)

    @contextlib.contextmanager
    def send(
        self, method: str, session_headers: HeaderList, body: bytes, way: Deadline, again: bool = True
    ) -> Iterator[WireResponse]:
        """An answer with its head read; it is closed at the end, whatever comes."""
        headers = [*self._headers, *session_headers]
        if body:
            headers.append(("Content-Length", str(len(body))))
        try:
            answer = self._transport.send(
                UpstreamRequest(method, self._url, tuple(headers), body), way, again
            )
        except UpstreamTimeout:
            raise ToolError(TIMED_OUT) from None
        except UpstreamError:
            raise ToolError("the MCP server could not be reached") from None
        with contextlib.closing(answer):
            yield answer

    def messages(self, answer: WireResponse) -> Iterator[Message]:
        kind = find(answer.headers, "content-type").partition(";")[0].strip().lower()
        if kind not in ("application/json", _STREAM):
            raise ToolError("the MCP server's answer is neither JSON nor an event stream")
        try:
            yield from jsonrpc.read(answer, kind, _NEVER)
        except ToolError:
            raise
        except UpstreamError:
            raise ToolError("the MCP server's answer broke off") from None

    def redact(self, text: str) -> str:
        """A server's own words may hold what was sent to it."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "...")
        return text[:_TEXT_LIMIT]


def _is_local(url: str) -> bool:
    """A proxy for the way out does not lead back here."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")
