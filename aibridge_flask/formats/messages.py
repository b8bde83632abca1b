"""Anthropic Messages: what is read of a request, and the API's errors.

https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..errors import BridgeError
from ..model import Fold, Offer, RequestFacts, Splice, Tool
from . import body, offering, prompt
from .messages_reader import MessagesReader
from .messages_splice import MessagesSplicer
from .splice import BlockingSplice, StreamSplice
from .tap import BlockingTap, StreamTap

NAME = "messages"
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
_NULL = msgspec.Raw(b"null")
_CHOICE = b'{"type":"auto"}'
_LATER = b'{"type":"auto","disable_parallel_tool_use":true}'


class _MessagesFields(msgspec.Struct):
    model: msgspec.Raw = _NULL
    stream: msgspec.Raw = _NULL
    metadata: msgspec.Raw = _NULL
    messages: list[msgspec.Raw] = []


def read(data: bytes) -> RequestFacts:
    """The facts of a request's body; raises BadBody."""
    request = body.decode_fields(data, _MessagesFields)
    message = prompt.last_message(request.messages)
    results = [
        body.get_string(block, "tool_use_id")
        for block in body.get_array(message, "content")
        if body.get_string(block, "type") == "tool_result"
    ]
    return RequestFacts(
        model=body.to_text(request.model),
        streaming=body.value(request.stream) is True,
        prompt=prompt.last_text(message),
        correlating_tool_call_id=results[-1] if results else "",
        user_id=body.get_string(body.value(request.metadata), "user_id"),
    )


def upstream_body(data: bytes, facts: RequestFacts) -> bytes:
    """The body to send: the very same."""
    return data


def fold(facts: RequestFacts) -> Fold:
    """Reads an event stream."""
    return StreamTap(MessagesReader())


def blocking_fold() -> Fold:
    """Reads a JSON answer."""
    return BlockingTap(MessagesReader())


def offer(data: bytes, facts: RequestFacts, tools: tuple[Tool, ...]) -> Offer:
    """The tools stand before the client's own, so that its cache breakpoints cover them too, and the
    model picks one at a time. Small fast models are asked for titles and the like: they get none."""
    found = {} if facts.streaming and "haiku" in facts.model else offering.members(data)
    own, choice = found.get("tools", offering.NULL), found.get("tool_choice", offering.NULL)
    choice = _CHOICE if choice == offering.NULL else choice
    new = offering.without_clashes(tools, own) if offering.is_array(own) else ()
    kind = body.get_string(body.loads(choice), "type")
    if not new or kind in ("", "none") or not found.get("messages", b"").startswith(b"["):
        return Offer(data)
    one_by_one = body.set_field(choice, "disable_parallel_tool_use", b"true")
    listed = offering.with_elements(own, before=offering.tools_json(_tool, new))
    later = {} if kind == "auto" else offering.follow_up_choice(own, _LATER)
    return offering.make_offer(found, {"tools": listed, "tool_choice": one_by_one}, new, later)


def _tool(tool: Tool) -> dict[str, Any]:
    return {"name": tool.id, "description": tool.description, "input_schema": tool.input_schema}


def splice(offer: Offer, facts: RequestFacts) -> Splice:
    """Reads an event stream where tools were offered."""
    return StreamSplice(MessagesSplicer(offer))


def blocking_splice(offer: Offer, facts: RequestFacts) -> Splice:
    """Reads a JSON answer where tools were offered."""
    return BlockingSplice(MessagesSplicer(offer))


def error_body(error: BridgeError, request_id: str) -> bytes:
    """An error of the bridge's own, as this API words it."""
    inner = {"type": error.type, "message": error.message}
    return body.dumps({"type": "error", "error": inner, "request_id": request_id})


def error_event(error: BridgeError, request_id: str) -> bytes:
    """The same inside a stream."""
    return b"event: error\ndata: " + error_body(error, request_id) + b"\n\n"
