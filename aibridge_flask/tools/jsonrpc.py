"""The JSON-RPC messages of an MCP server's response, which is a JSON text or an event stream."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .. import sse
from ..errors import ToolError
from ..protocols import UpstreamResponse
from .reading import Bookmark, Budget

MAX_MESSAGE_BYTES = 10 << 20
_EVENT_NAMES = (b"", b"message")
_MAX_DEPTH = 200
Message = dict[str, Any]


def request(id: int, method: str, params: Mapping[str, Any]) -> bytes:
    return encode({"id": id, "method": method, "params": params})


def notification(method: str, params: Mapping[str, Any] | None = None) -> bytes:
    return encode({"method": method} if params is None else {"method": method, "params": params})


def encode(message: Mapping[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **message}, separators=(",", ":")).encode()


def error_text(message: Message) -> str:
    error = message.get("error")
    return str(error.get("message", "")) if isinstance(error, dict) else ""


def error_code(message: Message) -> object:
    error = message.get("error")
    return error.get("code") if isinstance(error, dict) else None


def read(
    response: UpstreamResponse, media_type: str, idle_interval: float, bookmark: Bookmark, budget: Budget
) -> Iterator[Message]:
    """Yields messages as they arrive, until the response ends or is idle for `idle_interval` seconds.

    Raises ToolError on a message that is too large or malformed, and what `iter_body` raises.
    """
    pieces = _pieces(response, idle_interval, budget)
    texts = _read_events(pieces, bookmark) if media_type == "text/event-stream" else _read_body(pieces)
    for text in texts:
        value = _parse(text)
        for message in value if isinstance(value, list) else [value]:
            if not isinstance(message, dict):
                raise ToolError("the MCP server's answer is not JSON-RPC")
            yield message


def _pieces(response: UpstreamResponse, idle_interval: float, budget: Budget) -> Iterator[bytes]:
    for piece in response.iter_body(idle_interval):
        budget.spend(piece)
        yield piece


def _read_body(pieces: Iterable[bytes]) -> Iterator[bytes]:
    parts, size = [], 0
    for piece in pieces:
        if not piece:
            return
        parts.append(piece)
        size = _check_size(size + len(piece))
    yield b"".join(parts)


def _read_events(pieces: Iterable[bytes], bookmark: Bookmark) -> Iterator[bytes]:
    """Yields the data of each event, also of a last one without its blank line."""
    splitter, buffered = sse.EventSplitter(), 0
    for piece in pieces:
        if not piece:
            return
        events = splitter.feed(piece)
        buffered = _check_size(0 if events else buffered + len(piece))
        yield from _event_data(events, bookmark)
    yield from _event_data(splitter.flush(), bookmark)


def _event_data(events: bytes, bookmark: Bookmark) -> Iterator[bytes]:
    for raw in sse.split(events):
        event = sse.parse(raw)
        bookmark.move(raw)
        if event.name in _EVENT_NAMES and event.data.strip():
            yield event.data


def _check_size(size: int) -> int:
    if size > MAX_MESSAGE_BYTES:
        raise ToolError("the MCP server's answer is too large")
    return size


def _parse(text: bytes) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ToolError("the MCP server's answer is not JSON") from None
    if text.count(b"{") + text.count(b"[") > _MAX_DEPTH and _is_too_deep(value):
        raise ToolError("the MCP server's answer is nested too deeply")
    return value


def _is_too_deep(value: Any) -> bool:
    """Whether a value could be parsed, but not encoded deeper in the call stack."""
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [child for parent in level for child in _children(parent)]
    return bool(level)


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
