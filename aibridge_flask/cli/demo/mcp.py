"""The answers of the demonstration's MCP server, which has two tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_VERSION = "2025-06-18"
_QUERY = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
_TOOLS = (
    {"name": "search_docs", "description": "Searches the company's documentation.", "inputSchema": _QUERY},
    {"name": "search_tickets", "description": "Searches open tickets.", "inputSchema": _QUERY},
    {"name": "delete_ticket", "description": "Deletes a ticket.", "inputSchema": _QUERY},
)


def answer_to(message: Any) -> dict[str, Any]:
    """Returns the answer to a JSON-RPC message, {} to a notification."""
    if not isinstance(message, Mapping) or "id" not in message:
        return {}
    head = {"jsonrpc": "2.0", "id": message["id"]}
    match message.get("method"):
        case "initialize":
            about = {"serverInfo": {"name": "demo", "version": "1"}, "capabilities": {"tools": {}}}
            return {**head, "result": {"protocolVersion": _VERSION, **about}}
        case "tools/list":
            return {**head, "result": {"tools": list(_TOOLS)}}
        case "tools/call":
            text = "Nothing was found: this is the demonstration's own server."
            return {**head, "result": {"content": [{"type": "text", "text": text}]}}
        case "ping":
            return {**head, "result": {}}
    return {**head, "error": {"code": -32601, "message": "unknown method"}}
