"""The tools of all MCP servers that are up."""

from __future__ import annotations

import atexit
import json
import os
import threading
from collections.abc import Mapping
from math import isfinite
from time import monotonic, sleep
from typing import Any, NoReturn
from weakref import WeakSet

from ..config import Settings
from ..errors import ToolError
from ..model import Tool, ToolResult
from ..waiting import Client
from .jsonrpc import Message
from .loader import CLOSE_TIMEOUT, ToolLoader

_FIRST_LOAD_SECONDS = 1.0


class ToolBox:
    """One per application and process; it resets itself after a fork. Without servers it is empty."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._reset()
        if settings.mcp_servers:
            _toolboxes.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._loaders: tuple[ToolLoader, ...] = ()
        self._tools: tuple[Tool, ...] = ()
        self._is_running = not self._settings.mcp_servers
        self._waits_until = 0.0

    @property
    def ready(self) -> bool:
        """Whether each server has answered or failed once."""
        self.start()
        return all(loader.first_load_done for loader in self._loaders)

    @property
    def tools(self) -> tuple[Tool, ...]:
        """All tools, sorted by id. The tuple is never changed but replaced.

        A process that has just started waits for the servers, so that its first requests have tools too.
        """
        self.start()
        while monotonic() < self._waits_until and not self.ready:
            sleep(0.005)
        return self._tools

    @property
    def servers(self) -> tuple[ToolLoader, ...]:
        """All servers, with the tools that each has now."""
        self.start()
        return self._loaders

    def start(self) -> None:
        """Starts to load the tools of all servers in the background, once per process."""
        if self._is_running:
            return
        with self._lock:
            if self._is_running:
                return
            servers, settings = self._settings.mcp_servers, self._settings
            self._loaders = tuple(ToolLoader(server, settings, self._merge_tools) for server in servers)
            self._waits_until = monotonic() + _FIRST_LOAD_SECONDS
            self._is_running = True
        atexit.register(self.close)
        for loader in self._loaders:
            loader.start()

    def call(self, id: str, input: str, client: Client) -> ToolResult:
        """Calls a tool. `input` is JSON text, empty for no arguments. A failure is a result too.

        Raises ClientDisconnected.
        """
        tool = next((tool for tool in self.tools if tool.id == id), None)
        loader = next((item for item in self._loaders if tool and item.server.name == tool.server), None)
        try:
            if tool is None or loader is None:
                raise ToolError(f"there is no tool {id} now")
            return _to_result(loader.call(tool.name, _parse_arguments(input), client))
        except ToolError as error:
            return ToolResult(is_error=True, error=error.message)

    def close(self) -> None:
        """Ends the sessions, waiting a few seconds at most. The toolbox is empty afterwards."""
        atexit.unregister(self.close)
        with self._lock:
            loaders, self._loaders, self._tools, self._is_running = self._loaders, (), (), True
        end = monotonic() + CLOSE_TIMEOUT
        for loader in loaders:
            loader.stop(end - monotonic())

    def reset_after_fork(self) -> None:
        """Resets the toolbox in a forked process: threads, connections and sessions are the parent's."""
        for loader in self._loaders:
            loader.abandon()
        self._reset()

    def _merge_tools(self) -> None:
        with self._lock:
            tools = [tool for loader in self._loaders for tool in loader.tools]
            self._tools = tuple(sorted(tools, key=lambda tool: tool.id))


_toolboxes: WeakSet[ToolBox] = WeakSet()


def _reset_all() -> None:
    for toolbox in _toolboxes:
        toolbox.reset_after_fork()


os.register_at_fork(after_in_child=_reset_all)


def _parse_arguments(input: str) -> Mapping[str, Any]:
    try:
        arguments = (
            json.loads(input, parse_constant=_reject, parse_float=_finite_float) if input.strip() else {}
        )
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise ToolError("the tool's input is not a JSON object")
    return arguments


def _reject(constant: str) -> NoReturn:
    raise ValueError(constant)


def _finite_float(text: str) -> float:
    """Rejects infinite numbers, which Python encodes as invalid JSON."""
    number = float(text)
    return number if isfinite(number) else _reject(text)


def _to_result(message: Message) -> ToolResult:
    content, structured = message.get("content", []), message.get("structuredContent")
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise ToolError("the MCP server's result is not one of a tool")
    return ToolResult(
        content=tuple(content),
        structured=structured if isinstance(structured, dict) else {},
        is_error=message.get("isError") is True,
    )
