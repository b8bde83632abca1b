"""Keeps one MCP server's tools up to date, in the background."""

from __future__ import annotations

import _thread
import logging
import threading
from collections.abc import Callable, Mapping
from time import monotonic, sleep
from typing import Any

from ..config.settings import McpServerSettings, Settings
from ..errors import ToolError
from ..model import Tool
from ..waiting import Client
from .jsonrpc import Message
from .mcp import McpClient
from .selection import left_out, select_tools

_log = logging.getLogger("aibridge.tools")
CLOSE_TIMEOUT = 3.0  # seconds
_REFRESH_SECONDS = 600.0
_FIRST_PAUSE, _MAX_PAUSE = 1.0, 60.0  # seconds between attempts while the server is down
_RELISTEN_SECONDS = 30.0
_MIN_PAUSE = 1.0  # seconds; bounds the load by a server that announces changes all the time


class ToolLoader:
    """Loads a server's tools repeatedly. `tools` is empty while the server is down.

    `first_load_done`: the server has answered or failed once. `is_up`: it answered when it was last asked.
    `left_out` are the tools that are not offered, with the reason; `fault` says why the server is down.
    """

    def __init__(self, server: McpServerSettings, settings: Settings, on_change: Callable[[], None]) -> None:
        """`on_change` is called whenever `tools` may have changed."""
        self.server, self.first_load_done = server, False
        self.tools: tuple[Tool, ...] = ()
        self.left_out: tuple[tuple[str, str], ...] = ()
        self.fault = ""
        self._on_change = on_change
        self._is_stopped = self.is_up = False
        self._failures = 0
        self._wakeup = threading.Event()
        self._client = McpClient(server, settings, self._wakeup.set)

    def start(self) -> None:
        """Starts the thread.

        Not a `threading.Thread`: gevent copies its greenlets at a fork, and a copy that ends does not find
        its Thread object.
        """
        _thread.start_new_thread(self._run, ())

    def stop(self, seconds: float) -> None:
        """Ends the session within `seconds`, and the thread soon after."""
        self._is_stopped = True
        self._wakeup.set()
        self._client.close(seconds)

    def abandon(self) -> None:
        """Stops after a fork: the session belongs to the parent, whose threads may hold the Event's lock."""
        self._is_stopped = True
        self._client.forget()

    def call(self, name: str, arguments: Mapping[str, Any], client: Client) -> Message:
        """Calls a tool. After a failure the server is probed soon. Raises ToolError, ClientDisconnected."""
        try:
            return self._client.call(name, arguments, client)
        except ToolError:
            self._wakeup.set()
            raise

    def _run(self) -> None:
        while not self._is_stopped:
            self._wakeup.clear()
            self._load()
            if not self._is_stopped:
                self._wait()
        self._client.close(CLOSE_TIMEOUT)

    def _load(self) -> None:
        try:
            listed = self._client.tools()
            self.left_out = (*left_out(self.server, listed), *self._client.left_out)
            self._mark_up(select_tools(self.server, listed))
        except ToolError as error:
            self._mark_down(error)
        self._on_change()
        self.first_load_done = True

    def _mark_up(self, tools: tuple[Tool, ...]) -> None:
        if not self.is_up:
            _log.info("MCP server %s is up, tools: %d", self.server.name, len(tools))
        self.tools, self.is_up, self._failures, self.fault = tools, True, 0, ""

    def _mark_down(self, error: ToolError) -> None:
        if self.is_up or not self.first_load_done:
            _log.warning("the tools of MCP server %s are left out: %s", self.server.name, error.message)
        self.tools, self.is_up, self._failures, self.fault = (), False, self._failures + 1, error.message

    def _wait(self) -> None:
        """Waits until the tools are to be loaded again: at once if the server announces a change."""
        begun = monotonic()
        self._wakeup.wait(self._listen() if self.is_up else self._backoff())
        while not self._is_stopped and (remaining := begun + _MIN_PAUSE - monotonic()) > 0:
            sleep(remaining)

    def _listen(self) -> float:
        """Listens to the server; returns the seconds to wait afterwards.

        A server whose stream has ended may have been restarted, so it is listened to again soon.
        """
        end = monotonic() + _REFRESH_SECONDS
        has_stream = self._client.listen(lambda: self._is_stopped or self._wakeup.is_set(), _REFRESH_SECONDS)
        remaining = 0.0 if self._is_stopped else max(0.0, end - monotonic())
        return min(remaining, _RELISTEN_SECONDS) if has_stream else remaining

    def _backoff(self) -> float:
        return min(_FIRST_PAUSE * 2.0 ** min(self._failures - 1, 10), _MAX_PAUSE)
