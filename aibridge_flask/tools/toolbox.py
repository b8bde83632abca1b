"""All tools of all MCP servers that are up."""

from __future__ import annotations

import atexit
import json
import os
import threading
from collections.abc import Mapping
from math import isfinite
from time import monotonic
from typing import Any, NoReturn
from weakref import WeakSet

from ..config import Settings
from ..errors import ToolError
from ..model import Tool, ToolResult
from ..waiting import Client
from .jsonrpc import Message
from .loader import CLOSE_TIMEOUT, ToolLoader


class ToolBox:
    """One per application and process: it begins anew after a fork. Without servers it is empty
    and does nothing."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._begin()
        if settings.mcp_servers:
            _boxes.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._keepers: tuple[ToolLoader, ...] = ()
        self._tools: tuple[Tool, ...] = ()
        self._running = not self._settings.mcp_servers

    @property
    def ready(self) -> bool:
        """Each server has answered, or failed, once."""
        self.start()
        return all(keeper.first_load_done for keeper in self._keepers)

    @property
    def tools(self) -> tuple[Tool, ...]:
        """Sorted by id; the tuple is never changed, another one takes its place."""
        self.start()
        return self._tools

    def start(self) -> None:
        """Loads the tools in the background, all servers at once, if this process does not yet."""
        if self._running:
            return
        with self._lock:
            if self._running:
                return
            servers, settings = self._settings.mcp_servers, self._settings
            self._keepers = tuple(ToolLoader(server, settings, self._gather) for server in servers)
            self._running = True
        atexit.register(self.close)
        for keeper in self._keepers:
            keeper.start()

    def call(self, id: str, input: str, client: Client) -> ToolResult:
        """Always a result: a tool that fails gives one too. `input` is JSON text, empty for no
        arguments. Raises ClientGone alone."""
        tool = next((one for one in self.tools if one.id == id), None)
        keeper = next((one for one in self._keepers if tool and one.server.name == tool.server), None)
        try:
            if tool is None or keeper is None:
                raise ToolError(f"there is no tool {id} now")
            return _result(keeper.call(tool.name, _arguments(input), client))
        except ToolError as error:
            return ToolResult(is_error=True, error=error.message)

    def close(self) -> None:
        """Ends the sessions, as far as the servers answer soon. The box is empty then."""
        atexit.unregister(self.close)
        with self._lock:
            keepers, self._keepers, self._tools, self._running = self._keepers, (), (), True
        end = monotonic() + CLOSE_TIMEOUT
        for keeper in keepers:
            keeper.stop(end - monotonic())

    def forked(self) -> None:
        """Threads, connections and sessions stayed behind in the other process."""
        for keeper in self._keepers:
            keeper.abandon()
        self._begin()

    def _gather(self) -> None:
        with self._lock:
            found = [tool for keeper in self._keepers for tool in keeper.tools]
            self._tools = tuple(sorted(found, key=lambda tool: tool.id))


_boxes: WeakSet[ToolBox] = WeakSet()


def _fork() -> None:
    for box in _boxes:
        box.forked()


os.register_at_fork(after_in_child=_fork)


def _arguments(input: str) -> Mapping[str, Any]:
    try:
        found = json.loads(input, parse_constant=_refuse, parse_float=_finite) if input.strip() else {}
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ToolError("the tool's input is not a JSON object")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _finite(number: str) -> float:
    """Python would write an infinite one as no JSON."""
    found = float(number)
    return found if isfinite(found) else _refuse(number)


def _result(given: Message) -> ToolResult:
    content, structured = given.get("content", []), given.get("structuredContent")
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise ToolError("the MCP server's result is not one of a tool")
    return ToolResult(
        content=tuple(content),
        structured=structured if isinstance(structured, dict) else {},
        is_error=given.get("isError") is True,
    )
