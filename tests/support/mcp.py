"""A scripted MCP server on the scripted upstream: it answers as a plain one would, but for the
methods that a test has given answers of its own."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any

from tests.support.upstream import Heard, Step, Upstream, answer, streamed

Message = dict[str, Any]
SECRET = "token-0123456789abcdef"
SESSION = "session-1"
ADD = {"name": "add", "description": "Adds.", "inputSchema": {"type": "object", "properties": {}}}


def message(heard: Heard) -> Message:
    return json.loads(heard.body) if heard.body else {}


def method(heard: Heard) -> str:
    """The JSON-RPC method; `reply` for a response of ours; HTTP's own where there is no body."""
    return message(heard).get("method", "reply") if heard.body else heard.method


def text(found: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **found} if isinstance(found, dict) else found).encode()


def result(asked: Message, given: object, *headers: str) -> bytes:
    return answer(200, text({"id": asked.get("id"), "result": given}), *headers)


def event(found: object) -> bytes:
    return b"event: message\ndata: " + text(found) + b"\n\n"


def events(*found: object) -> list[bytes]:
    return streamed(b"".join(map(event, found)))


class ScriptedMcp:
    """`on[method]` holds answers that come first, each made of what was asked."""

    def __init__(self, upstream: Upstream, *tools: Message, session: str = SESSION) -> None:
        self.upstream, self.tools, self.session = upstream, list(tools or (ADD,)), session
        self.url = f"{upstream.url}/mcp"
        self.version = ""
        self.on: dict[str, deque[Callable[[Message], Iterable[Step]]]] = defaultdict(deque)
        upstream.handler = self._answer

    def asked(self, wanted: str) -> list[Heard]:
        return [heard for heard in list(self.upstream.heard) if method(heard) == wanted]

    def say(self, wanted: str, *steps: Step) -> None:
        """The next answer to a method, whatever was asked."""
        self.on[wanted].append(lambda asked: steps)

    def _answer(self, heard: Heard) -> Iterable[Step]:
        asked, name = message(heard), method(heard)
        if self.on[name]:
            return self.on[name].popleft()(asked)
        return [self._plain(name, asked)]

    def _plain(self, name: str, asked: Message) -> bytes:
        if name == "initialize":
            version = self.version or asked["params"]["protocolVersion"]
            headers = [f"Mcp-Session-Id: {self.session}"] if self.session else []
            can = {"tools": {"listChanged": True}}
            return result(asked, {"protocolVersion": version, "capabilities": can}, *headers)
        if name == "tools/list":
            return result(asked, {"tools": self.tools})
        if name == "tools/call":
            return result(asked, {"content": [{"type": "text", "text": "3"}]})
        if name in ("GET", "DELETE"):
            return answer(405, b"")
        return answer(202, b"")
