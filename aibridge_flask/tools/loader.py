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
from .selection import select_tools

_log = logging.getLogger("aibridge.tools")
CLOSE_TIMEOUT = 3.0
_REFRESH = 600.0
_FIRST_PAUSE, _LAST_PAUSE = 1.0, 60.0
_LISTEN_AGAIN = 30.0
_LEAST_PAUSE = 1.0  # a server that always has other tools is not asked without end


class ToolLoader:
    """`tools` are those of a server that is up. `settled`: it has answered, or failed, once."""

    def __init__(self, server: McpServerSettings, settings: Settings, publish: Callable[[], None]) -> None:
        """`publish` is called when `tools` has changed."""
        self.server, self.first_load_done = server, False
        self.tools: tuple[Tool, ...] = ()
        self._publish = publish
        self._stopped = self._up = False
        self._failures = 0
        self._wake = threading.Event()
        self._client = McpClient(server, settings, self._wake.set)

    def start(self) -> None:
        """Not a `threading.Thread`: gevent takes its greenlets along at a fork, and one that then
        ends finds its Thread gone."""
        _thread.start_new_thread(self._run, ())

    def stop(self, seconds: float) -> None:
        """Ends the session within that time, and the thread soon."""
        self._stopped = True
        self._wake.set()
        self._client.close(seconds)

    def abandon(self) -> None:
        """After a fork: the session is the other process's, and so may be the lock of an Event."""
        self._stopped = True
        self._client.forget()

    def call(self, name: str, arguments: Mapping[str, Any], client: Client) -> Message:
        """Raises ToolError, ClientGone. After a failure the server is asked whether it is there."""
        try:
            return self._client.call(name, arguments, client)
        except ToolError:
            self._wake.set()
            raise

    def _run(self) -> None:
        while not self._stopped:
            self._wake.clear()
            self._load()
            if not self._stopped:
                self._rest()
        self._client.close(CLOSE_TIMEOUT)

    def _load(self) -> None:
        try:
            self._take(select_tools(self.server, self._client.tools()))
        except ToolError as error:
            self._lose(error)
        self._publish()
        self.first_load_done = True

    def _take(self, tools: tuple[Tool, ...]) -> None:
        if not self._up:
            _log.info("MCP server %s is up, tools: %d", self.server.name, len(tools))
        self.tools, self._up, self._failures = tools, True, 0

    def _lose(self, error: ToolError) -> None:
        if self._up or not self.first_load_done:
            _log.warning("the tools of MCP server %s are left out: %s", self.server.name, error.message)
        self.tools, self._up, self._failures = (), False, self._failures + 1

    def _rest(self) -> None:
        """Until there is something to do: at once when the server says so."""
        begun = monotonic()
        self._wake.wait(self._listened() if self._up else self._back_off())
        while not self._stopped and (left := begun + _LEAST_PAUSE - monotonic()) > 0:
            sleep(left)

    def _listened(self) -> float:
        """Listens; then seconds to wait. A server whose stream has ended may have been restarted."""
        end = monotonic() + _REFRESH
        again = self._client.listen(lambda: self._stopped or self._wake.is_set(), _REFRESH)
        left = 0.0 if self._stopped else max(0.0, end - monotonic())
        return min(left, _LISTEN_AGAIN) if again else left

    def _back_off(self) -> float:
        return min(_FIRST_PAUSE * 2.0 ** min(self._failures - 1, 10), _LAST_PAUSE)
