"""Anthropic Messages: what is read of a request, and the API's errors.

https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

import msgspec

from ..errors import BridgeError
from ..model import Fold, RequestFacts
from . import body, prompt
from .messages_fold import MessagesReading
from .tap import StreamTap, WholeTap

NAME = "messages"
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
_NULL = msgspec.Raw(b"null")


class _Request(msgspec.Struct):
    model: msgspec.Raw = _NULL
    stream: msgspec.Raw = _NULL
    metadata: msgspec.Raw = _NULL
    messages: list[msgspec.Raw] = []


def read(data: bytes) -> RequestFacts:
    """The facts of a request's body; raises BadBody."""
    request = body.fields(data, _Request)
    message = prompt.newest(request.messages)
    results = [
        body.string(block, "tool_use_id")
        for block in body.listing(message, "content")
        if body.string(block, "type") == "tool_result"
    ]
    return RequestFacts(
        model=body.text_of(request.model),
        streaming=body.value(request.stream) is True,
        prompt=prompt.last_text(message),
        correlating_tool_call_id=results[-1] if results else "",
        user_id=body.string(body.value(request.metadata), "user_id"),
    )


def ask(data: bytes, facts: RequestFacts) -> bytes:
    """The body to send: the very same."""
    return data


def fold(facts: RequestFacts) -> Fold:
    """Reads an event stream."""
    return StreamTap(MessagesReading())


def whole_fold() -> Fold:
    """Reads a JSON answer."""
    return WholeTap(MessagesReading())


def error_body(error: BridgeError, request_id: str) -> bytes:
    """An error of the bridge's own, as this API words it."""
    inner = {"type": error.type, "message": error.message}
    return body.dumps({"type": "error", "error": inner, "request_id": request_id})


def error_event(error: BridgeError, request_id: str) -> bytes:
    """The same inside a stream."""
    return b"event: error\ndata: " + error_body(error, request_id) + b"\n\n"
