"""An MCP server in a few answers: fifty tools, which nobody calls."""

from __future__ import annotations

import json

_SCHEMA = {
    "type": "object",
    "properties": {
        "query": {"type": "string", "description": "what to look for"},
        "limit": {"type": "integer", "minimum": 1, "maximum": 100},
    },
    "required": ["query"],
}
_TOOLS = [
    {
        "name": f"search_{number:02}",
        "description": "Searches the documents of one team.",
        "inputSchema": _SCHEMA,
    }
    for number in range(50)
]
_REFUSED = b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n"


def answer(head: bytes, body: bytes) -> bytes:
    """To one request of the Streamable HTTP transport."""
    if not head.startswith(b"POST"):
        return _REFUSED
    asked = json.loads(body)
    if "id" not in asked:
        return b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
    result = {"tools": _TOOLS} if asked["method"] == "tools/list" else _session(asked)
    data = json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}).encode()
    told = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    return told.encode() + data


def _session(asked: dict[str, dict[str, str]]) -> dict[str, object]:
    return {
        "protocolVersion": asked["params"]["protocolVersion"],
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "bench", "version": "1"},
    }
