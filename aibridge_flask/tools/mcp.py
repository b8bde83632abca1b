"""One MCP server, spoken to synchronously over Streamable HTTP.

https://modelcontextprotocol.io/specification/2025-11-25/basic/transports
Each message is a POST of its own, so that any number of calls go on side by side.
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
_LOAD_TIMEOUT = 15.0
_ASIDE_TIMEOUT = 3.0  # for what nobody waits for
_LINGER = 0.02  # servers end a stream right after the response, and its connection can serve again
_NO_STREAMS = 405
_PAGES, _TOOLS = 100, 2000
_NO_METHOD = {"code": -32601, "message": "Method not found"}


@dataclass(frozen=True, slots=True)
class _Session:
    """What was agreed upon. `id` is empty where the server keeps no sessions."""

    version: str = ""
    id: str = field(default="", repr=False)
    has_tools: bool = False

    @property
    def headers(self) -> HeaderList:
        named = (("MCP-Protocol-Version", self.version), ("Mcp-Session-Id", self.id))
        return tuple(one for one in named if one[1])


_NONE = _Session()


class McpClient:
    """Raises ToolError and, where it is given a client, ClientGone; nothing else."""

    def __init__(self, server: McpServerSettings, settings: Settings, changed: Callable[[], None]) -> None:
        """`changed` is called when the server says that it has other tools now."""
        self._changed = changed
        self._timeout = settings.mcp.tool_timeout
        self._endpoint = Endpoint(server, settings)
        self._ids, self._session, self._opening = itertools.count(1), _NONE, threading.Lock()

    def tools(self) -> list[Message]:
        """All that the server lists, as it gave them. A failure ends the session, too: servers that
        were started anew do not all answer 404."""
        way = Deadline(UNWATCHED, min(self._timeout, _LOAD_TIMEOUT))
        try:
            return self._in_session(
                lambda session: self._list(session, way) if session.has_tools else [], way
            )
        except ToolError:
            self._end(_ASIDE_TIMEOUT)
            raise

    def call(self, name: str, arguments: Mapping[str, Any], client: Client) -> Message:
        """A tool's result as the server gave it. It is cancelled when its time is over, or when
        the client leaves."""
        way, params = Deadline(client, self._timeout), {"name": name, "arguments": arguments}
        return self._in_session(lambda session: self._call(session, params, way), way)

    def listen(self, wanted: Callable[[], bool], seconds: float) -> bool:
        """Hears what the server says by itself until it ends that, or somebody is `wanted`
        elsewhere; whether it ever may say something. Many that do have not announced it."""
        session, way = self._session, Deadline(InterruptibleClient(wanted), seconds)
        if not session.id:
            return False
        with (
            contextlib.suppress(ToolError, ClientDisconnected),
            self._endpoint.send("GET", session.headers, b"", way) as answer,
        ):
            if answer.status == 200:
                for message in self._endpoint.messages(answer):
                    self._hear(message, session, way)
            return answer.status != _NO_STREAMS
        return True

    def forget(self) -> None:
        """The session is another process's."""
        self._session = _NONE

    def close(self, seconds: float) -> None:
        """Ends the session, within that time, and the idle connections."""
        self._end(seconds)
        self._endpoint.close()

    def _end(self, seconds: float) -> None:
        session, self._session = self._session, _NONE
        if session.id:
            way = Deadline(UNWATCHED, seconds)
            with contextlib.suppress(ToolError), self._endpoint.send("DELETE", session.headers, b"", way):
                pass

    def _in_session(self, work: Callable[[_Session], T], way: Deadline) -> T:
        session = self._open(way)
        try:
            return work(session)
        except SessionLost:
            if self._session is session:
                self._session = _NONE
            return work(self._open(way))

    def _open(self, way: Deadline) -> _Session:
        if self._session.version:
            return self._session
        with self._opening:
            if not self._session.version:
                self._session = self._initialize(way)
            return self._session

    def _initialize(self, way: Deadline) -> _Session:
        params = {"protocolVersion": VERSIONS[0], "capabilities": {}, "clientInfo": _about_us()}
        id, step = next(self._ids), way.step()
        with self._endpoint.post((), jsonrpc.request(id, "initialize", params), step) as answer:
            given = _Session(id=find(answer.headers, "mcp-session-id"))
            result = self._result(answer, id, given, step)
        agreed, can = result.get("protocolVersion"), result.get("capabilities")
        if agreed not in VERSIONS:
            raise ToolError(self._endpoint.redact(f"the MCP server speaks protocol version {agreed} only"))
        session = _Session(str(agreed), given.id, isinstance(can, dict) and "tools" in can)
        with self._endpoint.post(session.headers, jsonrpc.notification("notifications/initialized"), way):
            return session

    def _list(self, session: _Session, way: Deadline) -> list[Message]:
        found: list[Message] = []
        params: dict[str, Any] = {}
        if not session.has_tools:
            return found
        for _ in range(_PAGES):
            page = self._ask(session, "tools/list", params, way, next(self._ids))
            listed, cursor = page.get("tools"), page.get("nextCursor")
            found += listed if isinstance(listed, list) else ()
            if not isinstance(cursor, str) or not cursor:
                return found
            if len(found) > _TOOLS:
                break
            params = {"cursor": cursor}
        raise ToolError("the MCP server's list of tools has no end")

    def _call(self, session: _Session, params: Mapping[str, Any], way: Deadline) -> Message:
        id = next(self._ids)
        try:
            return self._ask(session, "tools/call", params, way, id)
        except (ToolError, ClientDisconnected) as error:
            if way.over or isinstance(error, ClientDisconnected):
                cancelled = {"requestId": id, "reason": error.message}
                self._aside(session, jsonrpc.notification("notifications/cancelled", cancelled))
            raise

    def _ask(
        self, session: _Session, method: str, params: Mapping[str, Any], way: Deadline, id: int
    ) -> Message:
        body, step = jsonrpc.request(id, method, params), way.step()
        again = method != "tools/call"  # a tool may have done its work before the connection broke
        with self._endpoint.post(session.headers, body, step, again) as answer:
            return self._result(answer, id, session, step)

    def _result(self, answer: WireResponse, id: int, session: _Session, way: Deadline) -> Message:
        """The result of the request `id`; other messages may come before it."""
        found: list[Message] = []
        try:
            for message in self._endpoint.messages(answer):
                if "method" in message:
                    self._hear(message, session, way)
                elif not found and _answers(message, id):
                    found.append(message)
                    way.shorten(_LINGER)
        except ToolError:
            if not found:
                raise
        if not found:
            raise ToolError(TIMED_OUT if way.over else "the MCP server's answer has no response in it")
        return self._outcome(found[0])

    def _outcome(self, response: Message) -> Message:
        result = response.get("result")
        if "error" in response:
            raise ToolError(self._endpoint.redact(f"the MCP server refused: {error_text(response)}"))
        if not isinstance(result, dict):
            raise ToolError("the MCP server's response has no result in it")
        return result

    def _hear(self, message: Message, session: _Session, way: Deadline) -> None:
        """Answers what the server asks, and notices when it has other tools."""
        if message["method"] == "notifications/tools/list_changed":
            self._changed()
        elif "id" in message:
            outcome = {"result": {}} if message["method"] == "ping" else {"error": _NO_METHOD}
            reply = jsonrpc.encode({"id": message["id"], **outcome})
            with contextlib.suppress(ToolError), self._endpoint.post(session.headers, reply, way):
                pass

    def _aside(self, session: _Session, body: bytes) -> None:
        """Tells the server something while nobody waits for it."""

        def tell() -> None:
            with (
                contextlib.suppress(ToolError),
                self._endpoint.post(session.headers, body, Deadline(UNWATCHED, _ASIDE_TIMEOUT)),
            ):
                pass

        threading.Thread(target=tell, daemon=True).start()


def _answers(message: Message, id: int) -> bool:
    """A server that could not read the id says null."""
    return message.get("id") == id or (message.get("id") is None and "error" in message)


def _about_us() -> Message:
    try:
        return {"name": "aibridge", "version": version("aibridge-flask")}
    except PackageNotFoundError:
        return {"name": "aibridge", "version": "unknown"}
