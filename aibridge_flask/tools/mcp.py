"""A synchronous client of one MCP server, over Streamable HTTP.

Each message is a separate POST, so any number of calls can run in parallel.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from ..config.settings import McpServerSettings, Settings
from ..errors import ClientDisconnected, ToolError
from ..headers import find
from ..waiting import UNWATCHED, Client
from . import jsonrpc
from .conversation import Conversation
from .deadline import Deadline, InterruptibleClient
from .endpoint import Endpoint, Refused, SessionLost
from .jsonrpc import Message
from .reading import UNLIMITED, Bookmark, Budget
from .routing_headers import Path, marked_parameters, routing_headers
from .session import NO_SESSION, STATELESS_VERSION, VERSIONS, Session, client_info

T = TypeVar("T")
_log = logging.getLogger("aibridge.tools")
_LOAD_TIMEOUT = 15.0  # seconds
_BACKGROUND_TIMEOUT = 3.0  # seconds, for messages that nobody waits for
_METHOD_NOT_ALLOWED = 405  # the server has no stream of its own
_MAX_PAGES, _MAX_TOOLS = 100, 2000
_MAX_LIST_BYTES, _MAX_LIST_OBJECTS = 10 << 20, 50 * _MAX_TOOLS  # of all pages: a tool is some objects


class McpClient:
    """Raises ToolError and, if it is given a client, ClientDisconnected; nothing else."""

    def __init__(self, server: McpServerSettings, settings: Settings, on_change: Callable[[], None]) -> None:
        """`on_change` is called when the server announces that its tools have changed."""
        self._timeout = settings.mcp.tool_timeout
        self._endpoint = Endpoint(server, settings)
        self._conversation = Conversation(self._endpoint, on_change)
        self._session, self._open_lock = NO_SESSION, threading.Lock()
        self._parameters: Mapping[str, Mapping[str, Path]] = {}  # of each tool, those with a header
        self.left_out: tuple[tuple[str, str], ...] = ()  # tools that cannot be called, with the reason

    def tools(self) -> list[Message]:
        """Returns the tools that the server lists, unchanged.

        A failure also ends the session: a restarted server does not always respond with 404.
        """
        deadline = Deadline(UNWATCHED, min(self._timeout, _LOAD_TIMEOUT))
        try:
            return self._in_session(lambda session: self._list(session, deadline), deadline)
        except ToolError:
            self._end(_BACKGROUND_TIMEOUT)
            raise

    def call(self, name: str, arguments: Mapping[str, Any], client: Client) -> Message:
        """Returns a tool's result, unchanged but for secrets in the text of a failure.

        The call is cancelled when its time is over or the client disconnects.
        """
        deadline, params = Deadline(client, self._timeout), {"name": name, "arguments": arguments}
        result = self._in_session(partial(self._ask, "tools/call", params, deadline), deadline)
        if result.get("resultType", "complete") != "complete":
            raise ToolError("the tool asks for more input, which nobody can give")
        return self._without_secrets(result) if result.get("isError") is True else result

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
                for message in self._endpoint.messages(response, Bookmark(), UNLIMITED):
                    if "method" in message:
                        self._conversation.handle(message, session, deadline)
            return response.status != _METHOD_NOT_ALLOWED
        return True

    def forget(self) -> None:
        """Drops the session without ending it, since it belongs to another process."""
        self._session = NO_SESSION

    def close(self, seconds: float) -> None:
        """Ends the session within `seconds`, and closes idle connections."""
        self._end(seconds)
        self._endpoint.close()

    def _end(self, seconds: float) -> None:
        session, self._session = self._session, NO_SESSION
        if session.id:
            deadline = Deadline(UNWATCHED, seconds)
            with (
                contextlib.suppress(ToolError),
                self._endpoint.send("DELETE", session.headers, b"", deadline),
            ):
                pass

    def _in_session(self, work: Callable[[Session], T], deadline: Deadline) -> T:
        session = self._open(deadline)
        try:
            return work(session)
        except SessionLost:
            if self._session is session:
                self._session = NO_SESSION
            return work(self._open(deadline))

    def _open(self, deadline: Deadline) -> Session:
        if self._session.version:
            return self._session
        with self._open_lock:
            if not self._session.version:
                self._session = self._begin(deadline)
            return self._session

    def _begin(self, deadline: Deadline) -> Session:
        """Shakes hands. Servers that refuse to may be those of a revision without a handshake."""
        try:
            return self._initialize(deadline)
        except Refused:
            session = self._discover(deadline)
            if session is None:
                raise
            return session

    def _initialize(self, deadline: Deadline) -> Session:
        params = {"protocolVersion": VERSIONS[0], "capabilities": {}, "clientInfo": client_info()}
        result, headers = self._conversation.ask(NO_SESSION, "initialize", params, deadline)
        protocol = result.get("protocolVersion")
        if protocol == STATELESS_VERSION:
            return Session(STATELESS_VERSION, has_tools=_has_tools(result))
        if protocol not in VERSIONS:
            raise ToolError(self._endpoint.redact(f"the MCP server speaks protocol version {protocol} only"))
        session = Session(str(protocol), find(headers, "mcp-session-id"), _has_tools(result))
        with self._endpoint.post(
            session.headers, jsonrpc.notification("notifications/initialized"), deadline
        ):
            return session

    def _discover(self, deadline: Deadline) -> Session | None:
        """Returns a session if the server answers without a handshake; some answer only what they must."""
        session = Session(STATELESS_VERSION, has_tools=True)
        for method in ("server/discover", "tools/list"):
            with contextlib.suppress(ToolError):
                result = self._ask(method, {}, deadline, session, _list_budget())
                has_tools = _has_tools(result) or "tools" in result
                return Session(STATELESS_VERSION, has_tools=has_tools)
        return None

    def _list(self, session: Session, deadline: Deadline) -> list[Message]:
        try:
            tools = self._list_pages(session, deadline)
        except SessionLost:
            raise
        except Refused:
            if session.has_tools:
                raise
            return []  # it has announced none
        return self._with_headers(tools) if session.is_stateless else tools

    def _list_pages(self, session: Session, deadline: Deadline) -> list[Message]:
        tools: list[Message] = []
        params: dict[str, Any] = {}
        budget = _list_budget()
        for _ in range(_MAX_PAGES):
            page = self._ask("tools/list", params, deadline, session, budget)
            listed, cursor = page.get("tools"), page.get("nextCursor")
            tools += listed if isinstance(listed, list) else ()
            if len(tools) > _MAX_TOOLS:
                raise ToolError(f"the MCP server lists more than {_MAX_TOOLS} tools")
            if not isinstance(cursor, str) or not cursor:
                return tools
            params = {"cursor": cursor}
        raise ToolError("the MCP server's list of tools has no end")

    def _with_headers(self, tools: list[Message]) -> list[Message]:
        """Notes the parameters that calls repeat in headers; leaves out tools where they cannot."""
        parameters, usable, unusable = {}, [], []
        for tool in tools:
            name, schema = (tool.get("name"), tool.get("inputSchema")) if isinstance(tool, dict) else ("", {})
            try:
                parameters[str(name)] = marked_parameters(schema)
                usable.append(tool)
            except ValueError as error:
                _log.warning("a tool of an MCP server is left out: %s: %s", name, error)
                unusable.append((str(name), str(error)))
        self._parameters, self.left_out = parameters, tuple(unusable)
        return usable

    def _ask(
        self,
        method: str,
        params: Mapping[str, Any],
        deadline: Deadline,
        session: Session,
        budget: Budget = UNLIMITED,
    ) -> Message:
        parameters = self._parameters.get(str(params.get("name")), {})
        headers = routing_headers(method, params, parameters) if session.is_stateless else ()
        return self._conversation.ask(session, method, params, deadline, headers, budget)[0]

    def _without_secrets(self, result: Message) -> Message:
        content = result.get("content")
        blocks = [
            {**block, "text": self._endpoint.without_secrets(block["text"])}
            if isinstance(block, dict) and isinstance(block.get("text"), str)
            else block
            for block in (content if isinstance(content, list) else [])
        ]
        return {**result, "content": blocks}


def _has_tools(result: Message) -> bool:
    capabilities = result.get("capabilities")
    return isinstance(capabilities, dict) and "tools" in capabilities


def _list_budget() -> Budget:
    return Budget(_MAX_LIST_BYTES, _MAX_LIST_OBJECTS)
