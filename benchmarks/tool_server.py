"""A minimal MCP server: it lists fifty tools, which are never called."""

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
_METHOD_NOT_ALLOWED = b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n"


def respond(head: bytes, body: bytes) -> bytes:
    """The response to one request of the Streamable HTTP transport."""
    if not head.startswith(b"POST"):
        return _METHOD_NOT_ALLOWED
    request = json.loads(body)
    if "id" not in request:
        return b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
    result = {"tools": _TOOLS} if request["method"] == "tools/list" else _initialize_result(request)
    data = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode()
    response_head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    return response_head.encode() + data


def _initialize_result(request: dict[str, dict[str, str]]) -> dict[str, object]:
    return {
        "protocolVersion": request["params"]["protocolVersion"],
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "bench", "version": "1"},
    }
