"""The JSON-RPC messages of an MCP server's answer, one JSON text or an event stream."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .. import sse
from ..errors import ToolError
from ..model import UpstreamResponse

SIZE_LIMIT = 10 << 20
_EVENT_NAMES = (b"", b"message")
_DEEPEST = 200
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


def read(answer: UpstreamResponse, kind: str, idle_interval: float) -> Iterator[Message]:
    """Messages as they come, until the answer ends or nothing has come for `tick` seconds.

    Raises ToolError where one is too large or is no message, and what `pieces` raises.
    """
    texts = _data(answer, idle_interval) if kind == "text/event-stream" else _whole(answer, idle_interval)
    for text in texts:
        found = _parse(text)
        for message in found if isinstance(found, list) else [found]:
            if not isinstance(message, dict):
                raise ToolError("the MCP server's answer is not JSON-RPC")
            yield message


def _whole(answer: UpstreamResponse, idle_interval: float) -> Iterator[bytes]:
    parts, size = [], 0
    for piece in answer.iter_body(idle_interval):
        if not piece:
            return
        parts.append(piece)
        size = _bounded(size + len(piece))
    yield b"".join(parts)


def _data(answer: UpstreamResponse, idle_interval: float) -> Iterator[bytes]:
    """The data of each event. A last one without its blank line counts too."""
    scanner, held = sse.EventSplitter(), 0
    for piece in answer.iter_body(idle_interval):
        if not piece:
            return
        run = scanner.feed(piece)
        held = _bounded(0 if run else held + len(piece))
        yield from _events(run)
    yield from _events(scanner.flush())


def _events(run: bytes) -> Iterator[bytes]:
    for raw in sse.split(run):
        event = sse.parse(raw)
        if event.name in _EVENT_NAMES and event.data.strip():
            yield event.data


def _bounded(size: int) -> int:
    if size > SIZE_LIMIT:
        raise ToolError("the MCP server's answer is too large")
    return size


def _parse(text: bytes) -> Any:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise ToolError("the MCP server's answer is not JSON") from None
    if text.count(b"{") + text.count(b"[") > _DEEPEST and _is_deep(found):
        raise ToolError("the MCP server's answer is nested too deeply")
    return found


def _is_deep(found: Any) -> bool:
    """So deep that it could be read, but not be written where more calls are under way."""
    level = [found]
    for _ in range(_DEEPEST):
        level = [inner for one in level for inner in _inside(one)]
    return bool(level)


def _inside(found: Any) -> Iterable[Any]:
    if isinstance(found, dict):
        return found.values()
    return found if isinstance(found, list) else ()
