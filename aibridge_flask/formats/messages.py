"""Anthropic Messages: reads requests, offers tools and writes the API's errors.

https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..errors import BridgeError
from ..model import Offer, RequestFacts, Tool
from ..protocols import Fold, Splice
from . import body, offering, prompt, side_requests, tool_schema
from .long_texts import read_shortened
from .messages_reader import MessagesReader
from .messages_splice import MessagesSplicer
from .splice import BlockingSplice, StreamSplice
from .tap import BlockingTap, StreamTap
from .tool_schema import SchemaRules

NAME = "messages"
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
_RULES = SchemaRules(takes_references=False, needs_items=False, property_name="[a-zA-Z0-9_.-]{1,64}")
_NULL = msgspec.Raw(b"null")
_AUTO_CHOICE = b'{"type":"auto"}'
_FOLLOW_UP_CHOICE = b'{"type":"auto","disable_parallel_tool_use":true}'


class _MessagesFields(msgspec.Struct):
    model: msgspec.Raw = _NULL
    stream: msgspec.Raw = _NULL
    metadata: msgspec.Raw = _NULL
    messages: list[msgspec.Raw] = []
    tools: msgspec.Raw = _NULL
    output_config: msgspec.Raw = _NULL
    max_tokens: msgspec.Raw = _NULL


@read_shortened
def read(data: bytes) -> RequestFacts:
    """Reads the facts of a request's body. Raises InvalidBody."""
    request = body.decode_fields(data, _MessagesFields)
    message = prompt.last_message(request.messages)
    call_ids = [
        body.get_identifier(block, "tool_use_id")
        for block in body.get_array(message, "content")
        if body.get_string(block, "type") == "tool_result"
    ]
    text = prompt.last_user_text(message)
    config = body.decode_raw(request.output_config)
    return RequestFacts(
        model=body.to_identifier(request.model),
        streaming=body.decode_raw(request.stream) is True,
        prompt=text,
        side_kind=side_requests.kind_of(request.messages, text, request.tools, config),
        correlating_tool_call_id=call_ids[-1] if call_ids else "",
        user_id=body.get_string(body.decode_raw(request.metadata), "user_id"),
        max_output=body.to_count(request.max_tokens),
    )


def upstream_body(data: bytes, facts: RequestFacts) -> bytes:
    """Returns the body to send: the client's, unchanged."""
    return data


def fold(facts: RequestFacts) -> Fold:
    """Returns the fold of an event stream."""
    return StreamTap(MessagesReader())


def blocking_fold() -> Fold:
    """Returns the fold of a JSON response."""
    return BlockingTap(MessagesReader())


def offer(data: bytes, facts: RequestFacts, tools: tuple[Tool, ...]) -> Offer:
    """Adds the tools before the client's own, so that the client's cache breakpoints cover them too.

    Returns the body unchanged if it cannot. The model may call one tool at a time. Clients ask small fast
    models for titles and the like: those requests get no tools.
    """
    members = {} if facts.streaming and "haiku" in facts.model else offering.editable_members(data)
    own, choice = members.get("tools", offering.NULL), members.get("tool_choice", offering.NULL)
    choice = _AUTO_CHOICE if choice == offering.NULL else choice
    new = offering.without_clashes(tools, own) if offering.is_array(own) else ()
    kind = body.get_string(body.loads(choice), "type")
    if not new or kind in ("", "none") or not members.get("messages", b"").startswith(b"["):
        return Offer(data)
    single_call_choice = body.set_field(choice, "disable_parallel_tool_use", b"true")
    all_tools = offering.with_elements(own, before=offering.tools_json(_tool, new))
    changes = {"tools": all_tools, "tool_choice": single_call_choice}
    follow_up = {} if kind == "auto" else offering.follow_up_choice(own, _FOLLOW_UP_CHOICE)
    return offering.make_offer(members, changes, new, follow_up)


def _tool(tool: Tool) -> dict[str, Any]:
    schema, _ = tool_schema.fit(tool, _RULES)
    return {"name": tool.id, "description": tool.description, "input_schema": schema}


def refusal(tool: Tool) -> str:
    """Returns why this API refuses a tool's schema, "" if it does not."""
    return tool_schema.fit(tool, _RULES)[1]


def splice(offer: Offer, facts: RequestFacts) -> Splice:
    """Returns the splice of event streams, for a request with offered tools."""
    return StreamSplice(MessagesSplicer(offer))


def blocking_splice(offer: Offer, facts: RequestFacts) -> Splice:
    """Returns the splice of JSON responses, for a request with offered tools."""
    return BlockingSplice(MessagesSplicer(offer))


def error_body(error: BridgeError, request_id: str) -> bytes:
    """Returns one of the bridge's own errors as this API writes it."""
    inner = {"type": error.type, "message": error.message}
    return body.dumps({"type": "error", "error": inner, "request_id": request_id})


def error_event(error: BridgeError, request_id: str) -> bytes:
    """Returns the error as an event, for a stream that has begun."""
    return b"event: error\ndata: " + error_body(error, request_id) + b"\n\n"
