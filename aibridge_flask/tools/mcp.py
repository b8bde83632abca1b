"""A synchronous client of one MCP server, over Streamable HTTP.

https://modelcontextprotocol.io/specification/2025-11-25/basic/transports
Each message is a separate POST, so any number of calls can run in parallel.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

from ..config.settings import McpServerSettings, Settings
from ..errors import ClientDisconnected, ToolError
from ..headers import find
from ..model import HeaderList
from ..upstream.transport import WireResponse
from ..waiting import UNWATCHED, Client
from . import jsonrpc
from .deadline import Deadline, InterruptibleClient
from .endpoint import TIMED_OUT, Endpoint, SessionLost
from .jsonrpc import Message, error_text

T = TypeVar("T")
VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
_LOAD_TIMEOUT = 15.0  # seconds
_BACKGROUND_TIMEOUT = 3.0  # seconds, for messages that nobody waits for
_LINGER_SECONDS = 0.02  # servers end a stream right after the response, and its connection can be reused
_METHOD_NOT_ALLOWED = 405  # the server has no stream of its own
_MAX_PAGES, _MAX_TOOLS = 100, 2000
_METHOD_NOT_FOUND = {"code": -32601, "message": "Method not found"}


@dataclass(frozen=True, slots=True)
class _Session:
    """What client and server agreed on. `id` is empty if the server keeps no sessions."""

    version: str = ""
    id: str = field(default="", repr=False)
    has_tools: bool = False

    @property
    def headers(self) -> HeaderList:
        headers = (("MCP-Protocol-Version", self.version), ("Mcp-Session-Id", self.id))
        return tuple(header for header in headers if header[1])


_NO_SESSION = _Session()


class McpClient:
    """Raises ToolError and, if it is given a client, ClientDisconnected; nothing else."""

    def __init__(self, server: McpServerSettings, settings: Settings, on_change: Callable[[], None]) -> None:
        """`on_change` is called when the server announces that its tools have changed."""
        self._on_change = on_change
        self._timeout = settings.mcp.tool_timeout
        self._endpoint = Endpoint(server, settings)
        self._ids, self._session, self._open_lock = itertools.count(1), _NO_SESSION, threading.Lock()

    def tools(self) -> list[Message]:
        """Returns the tools that the server lists, unchanged.

        A failure also ends the session: a restarted server does not always respond with 404.
        """
        deadline = Deadline(UNWATCHED, min(self._timeout, _LOAD_TIMEOUT))
        try:
            return self._in_session(
                lambda session: self._list(session, deadline) if session.has_tools else [], deadline
            )
        except ToolError:
            self._end(_BACKGROUND_TIMEOUT)
            raise

    def call(self, name: str, arguments: Mapping[str, Any], client: Client) -> Message:
        """Returns a tool's result, unchanged.

        The call is cancelled when its time is over or the client disconnects.
        """
        deadline, params = Deadline(client, self._timeout), {"name": name, "arguments": arguments}
        return self._in_session(lambda session: self._call(session, params, deadline), deadline)

    def listen(self, is_interrupted: Callable[[], bool], seconds: float) -> bool:
        """Handles the messages that the server sends by itself, for up to `seconds`.

        Ends early if the server ends the stream, or `is_interrupted` returns true. Returns whether the server
        has such a stream: many that do have not announced it.
        """
        session, deadline = self._session, Deadline(InterruptibleClient(is_interrupted), seconds)
        if not session.id:
            return False
        with (
            contextlib.suppress(ToolError, ClientDisconnected),
            self._endpoint.send("GET", session.headers, b"", deadline) as response,
        ):
            if response.status == 200:
                for message in self._endpoint.messages(response):
                    self._handle(message, session, deadline)
            return response.status != _METHOD_NOT_ALLOWED
        return True

    def forget(self) -> None:
        """Drops the session without ending it, since it belongs to another process."""
        self._session = _NO_SESSION

    def close(self, seconds: float) -> None:
        """Ends the session within `seconds`, and closes idle connections."""
        self._end(seconds)
        self._endpoint.close()

    def _end(self, seconds: float) -> None:
        session, self._session = self._session, _NO_SESSION
        if session.id:
            deadline = Deadline(UNWATCHED, seconds)
            with (
                contextlib.suppress(ToolError),
                self._endpoint.send("DELETE", session.headers, b"", deadline),
            ):
                pass

    def _in_session(self, work: Callable[[_Session], T], deadline: Deadline) -> T:
        session = self._open(deadline)
        try:
            return work(session)
        except SessionLost:
            if self._session is session:
                self._session = _NO_SESSION
            return work(self._open(deadline))

    def _open(self, deadline: Deadline) -> _Session:
        if self._session.version:
            return self._session
        with self._open_lock:
            if not self._session.version:
                self._session = self._initialize(deadline)
            return self._session

    def _initialize(self, deadline: Deadline) -> _Session:
        params = {"protocolVersion": VERSIONS[0], "capabilities": {}, "clientInfo": _client_info()}
        id, step = next(self._ids), deadline.copy()
        with self._endpoint.post((), jsonrpc.request(id, "initialize", params), step) as response:
            temporary = _Session(id=find(response.headers, "mcp-session-id"))
            result = self._result(response, id, temporary, step)
        protocol, capabilities = result.get("protocolVersion"), result.get("capabilities")
        if protocol not in VERSIONS:
            raise ToolError(self._endpoint.redact(f"the MCP server speaks protocol version {protocol} only"))
        session = _Session(
            str(protocol), temporary.id, isinstance(capabilities, dict) and "tools" in capabilities
        )
        with self._endpoint.post(
            session.headers, jsonrpc.notification("notifications/initialized"), deadline
        ):
            return session

    def _list(self, session: _Session, deadline: Deadline) -> list[Message]:
        tools: list[Message] = []
        params: dict[str, Any] = {}
        if not session.has_tools:
            return tools
        for _ in range(_MAX_PAGES):
            page = self._ask(session, "tools/list", params, deadline, next(self._ids))
            listed, cursor = page.get("tools"), page.get("nextCursor")
            tools += listed if isinstance(listed, list) else ()
            if not isinstance(cursor, str) or not cursor:
                return tools
            if len(tools) > _MAX_TOOLS:
                break
            params = {"cursor": cursor}
        raise ToolError("the MCP server's list of tools has no end")

    def _call(self, session: _Session, params: Mapping[str, Any], deadline: Deadline) -> Message:
        id = next(self._ids)
        try:
            return self._ask(session, "tools/call", params, deadline, id)
        except (ToolError, ClientDisconnected) as error:
            if deadline.is_over or isinstance(error, ClientDisconnected):
                cancelled = {"requestId": id, "reason": error.message}
                self._notify(session, jsonrpc.notification("notifications/cancelled", cancelled))
            raise

    def _ask(
        self, session: _Session, method: str, params: Mapping[str, Any], deadline: Deadline, id: int
    ) -> Message:
        body, step = jsonrpc.request(id, method, params), deadline.copy()
        resend = method != "tools/call"  # a tool may have had its effect before the connection broke
        with self._endpoint.post(session.headers, body, step, resend) as response:
            return self._result(response, id, session, step)

    def _result(self, response: WireResponse, id: int, session: _Session, deadline: Deadline) -> Message:
        """Returns the result of the request `id`. Other messages may precede it."""
        responses: list[Message] = []
        try:
            for message in self._endpoint.messages(response):
                if "method" in message:
                    self._handle(message, session, deadline)
                elif not responses and _is_response(message, id):
                    responses.append(message)
                    deadline.shorten(_LINGER_SECONDS)
        except ToolError:
            if not responses:
                raise
        if not responses:
            raise ToolError(
                TIMED_OUT if deadline.is_over else "the MCP server's answer has no response in it"
            )
        return self._unwrap(responses[0])

    def _unwrap(self, response: Message) -> Message:
        result = response.get("result")
        if "error" in response:
            raise ToolError(self._endpoint.redact(f"the MCP server refused: {error_text(response)}"))
        if not isinstance(result, dict):
            raise ToolError("the MCP server's response has no result in it")
        return result

    def _handle(self, message: Message, session: _Session, deadline: Deadline) -> None:
        """Handles a request or notification of the server."""
        if message["method"] == "notifications/tools/list_changed":
            self._on_change()
        elif "id" in message:
            outcome = {"result": {}} if message["method"] == "ping" else {"error": _METHOD_NOT_FOUND}
            response = jsonrpc.encode({"id": message["id"], **outcome})
            with contextlib.suppress(ToolError), self._endpoint.post(session.headers, response, deadline):
                pass

    def _notify(self, session: _Session, body: bytes) -> None:
        """Sends a notification in the background."""

        def send() -> None:
            with (
                contextlib.suppress(ToolError),
                self._endpoint.post(session.headers, body, Deadline(UNWATCHED, _BACKGROUND_TIMEOUT)),
            ):
                pass

        threading.Thread(target=send, daemon=True).start()


def _is_response(message: Message, id: int) -> bool:
    """A server that could not read the id responds with null."""
    return message.get("id") == id or (message.get("id") is None and "error" in message)


def _client_info() -> Message:
    try:
        return {"name": "aibridge", "version": version("aibridge-flask")}
    except PackageNotFoundError:
        return {"name": "aibridge", "version": "unknown"}
