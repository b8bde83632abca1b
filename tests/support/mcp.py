"""A scripted MCP server on the scripted upstream.

It answers as a plain server does, except for the methods for which a test has queued answers.
"""

from __future__ import annotations

import json
import socket
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from aibridge_flask.errors import ClientDisconnected, ToolError
from aibridge_flask.tools.mcp import McpClient
from aibridge_flask.waiting import UNWATCHED, watch
from tests.support.upstream import ReceivedRequest, Step, Upstream, event_stream, http_response

Message = dict[str, Any]
SECRET = "token-0123456789abcdef"
SESSION = "session-1"
RESULT = {"content": [{"type": "text", "text": "3"}]}
ADD = {"name": "add", "description": "Adds.", "inputSchema": {"type": "object", "properties": {}}}


def message(received: ReceivedRequest) -> Message:
    return json.loads(received.body) if received.body else {}


def method(received: ReceivedRequest) -> str:
    """The JSON-RPC method; `reply` for a response of the client; HTTP's method if there is no body."""
    return message(received).get("method", "reply") if received.body else received.method


def to_json(value: object) -> bytes:
    """A JSON-RPC message of an object's members; any other value as it is."""
    return json.dumps({"jsonrpc": "2.0", **value} if isinstance(value, dict) else value).encode()


def result(request: Message, value: object, *headers: str) -> bytes:
    """The HTTP response to a JSON-RPC request, with its result."""
    return http_response(200, to_json({"id": request.get("id"), "result": value}), *headers)


def event(value: object) -> bytes:
    return b"event: message\ndata: " + to_json(value) + b"\n\n"


def events(*values: object) -> list[bytes]:
    return event_stream(b"".join(map(event, values)))


def call(client: McpClient) -> object:
    return client.call("add", {"a": 1}, UNWATCHED)


def failure(client: McpClient) -> str:
    with pytest.raises(ToolError) as caught:
        call(client)
    return caught.value.message


def leave_during_call(client: McpClient, sent: threading.Event) -> None:
    """Calls the tool for somebody who disconnects once `sent` is set."""
    server_end, client_end = socket.socketpair()
    with server_end, client_end, ThreadPoolExecutor() as pool:
        called = pool.submit(client.call, "add", {}, watch(server_end))
        assert sent.wait(20)
        client_end.close()
        with pytest.raises(ClientDisconnected):
            called.result(20)


class ScriptedMcp:
    """`on[method]` holds the next answers to a method: functions of the JSON-RPC request."""

    def __init__(self, upstream: Upstream, *tools: Message, session: str = SESSION) -> None:
        self.upstream, self.tools, self.session = upstream, list(tools or (ADD,)), session
        self.url = f"{upstream.url}/mcp"
        self.version = ""
        self.on: dict[str, deque[Callable[[Message], Iterable[Step]]]] = defaultdict(deque)
        upstream.handler = self._answer

    def requests(self, name: str) -> list[ReceivedRequest]:
        """The requests of a method, so far."""
        return [received for received in list(self.upstream.requests) if method(received) == name]

    def enqueue(self, name: str, *steps: Step) -> None:
        """The next answer to a method, whatever the request."""
        self.on[name].append(lambda request: steps)

    def _answer(self, received: ReceivedRequest) -> Iterable[Step]:
        request, name = message(received), method(received)
        if self.on[name]:
            return self.on[name].popleft()(request)
        return [self.default_answer(name, request)]

    def default_answer(self, name: str, request: Message) -> bytes:
        if name == "initialize":
            version = self.version or request["params"]["protocolVersion"]
            headers = [f"Mcp-Session-Id: {self.session}"] if self.session else []
            capabilities = {"tools": {"listChanged": True}}
            return result(request, {"protocolVersion": version, "capabilities": capabilities}, *headers)
        if name == "tools/list":
            return result(request, {"tools": self.tools})
        if name == "tools/call":
            return result(request, RESULT)
        if name in ("GET", "DELETE"):
            return http_response(405, b"")
        return http_response(202, b"")
