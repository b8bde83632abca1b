"""OpenAI Chat Completions: reads requests, offers tools and writes the API's errors.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from ..errors import BridgeError
from ..model import Offer, RequestFacts, Tool
from ..protocols import Fold, Splice
from . import body, offering, openai, prompt, side_requests
from .chat_reader import ChatReader, UsageFilter
from .chat_splice import ChatSplicer
from .long_texts import LongTexts, read_shortened
from .splice import BlockingSplice, StreamSplice
from .tap import BlockingTap, StreamTap

NAME = "chat"
PING = openai.PING
error_body = openai.error_body
refusal = openai.refusal
_NULL = msgspec.Raw(b"null")
_MAX_DESCRIPTION_LENGTH = 1024  # the API refuses the whole request for a longer one
_NO_PARALLEL_CALLS = re.compile(r"(?:.*/)?o\d")  # these models never call in parallel, and refuse the switch


class _ChatFields(msgspec.Struct):
    model: msgspec.Raw = _NULL
    stream: msgspec.Raw = _NULL
    stream_options: msgspec.Raw = _NULL
    messages: list[msgspec.Raw] = []
    tools: msgspec.Raw = _NULL
    max_completion_tokens: msgspec.Raw = _NULL
    max_tokens: msgspec.Raw = _NULL


@read_shortened
def read(data: bytes) -> RequestFacts:
    """Reads the facts of a request's body. Raises InvalidBody."""
    request = body.decode_fields(data, _ChatFields)
    message = prompt.last_message(request.messages)
    call_id = body.get_identifier(message, "tool_call_id") if message.get("role") == "tool" else ""
    streaming = body.decode_raw(request.stream) is True
    options = body.decode_raw(request.stream_options)
    asks_usage = isinstance(options, dict) and options.get("include_usage") is True
    text = prompt.last_user_text(message)
    return RequestFacts(
        model=body.to_identifier(request.model),
        streaming=streaming,
        prompt=text,
        side_kind=side_requests.kind_of(request.messages, text, request.tools),
        correlating_tool_call_id=call_id,
        includes_usage=asks_usage or not streaming,
        max_output=body.to_count(request.max_completion_tokens, request.max_tokens),
    )


def upstream_body(data: bytes, facts: RequestFacts) -> bytes:
    """Returns the body to send. It asks for a stream's usage if the client does not."""
    if facts.includes_usage:
        return data
    fields = body.decode_fields(LongTexts().shorten(data), _ChatFields)
    client_options = body.decode_raw(fields.stream_options)
    options = {**(client_options if isinstance(client_options, dict) else {}), "include_usage": True}
    return body.set_field(data, "stream_options", body.dumps(options))


def fold(facts: RequestFacts) -> Fold:
    """Returns the fold of an event stream. It hides the usage from a client that did not ask for it."""
    return StreamTap(ChatReader()) if facts.includes_usage else UsageFilter(ChatReader())


def blocking_fold() -> Fold:
    """Returns the fold of a JSON response."""
    return BlockingTap(ChatReader())


def offer(data: bytes, facts: RequestFacts, tools: tuple[Tool, ...]) -> Offer:
    """Adds the tools after the client's own. Returns the body unchanged if it cannot.

    The model may call one tool at a time.
    """
    members = offering.editable_members(data)
    own = members.get("tools", offering.NULL)
    new = openai.new_tools(tools, own) if offering.is_array(own) and _can_follow_up(members) else ()
    choice = body.loads(members.get("tool_choice", offering.NULL))
    if not new or choice == "none":
        return Offer(data)
    changes = {"tools": offering.with_elements(own, after=offering.tools_json(_tool, new))}
    if not _NO_PARALLEL_CALLS.match(facts.model):
        changes["parallel_tool_calls"] = b"false"
    follow_up = {} if choice in (None, "auto") else offering.follow_up_choice(own, b'"auto"')
    return offering.make_offer(members, changes, new, follow_up)


def _can_follow_up(members: Mapping[str, bytes]) -> bool:
    """Whether the request asks for one choice, and for calls in this API's current form."""
    single = members.get("n", offering.NULL) in (b"1", offering.NULL)
    legacy = members.get("functions", offering.NULL) != offering.NULL
    return single and not legacy and members.get("messages", b"").startswith(b"[")


def _tool(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.id, "description": tool.description[:_MAX_DESCRIPTION_LENGTH]}
    return {"type": "function", "function": {**function, "parameters": openai.tool_parameters(tool)}}


def splice(offer: Offer, facts: RequestFacts) -> Splice:
    """Returns the splice of event streams, for a request with offered tools."""
    return StreamSplice(ChatSplicer(offer, facts.includes_usage))


def blocking_splice(offer: Offer, facts: RequestFacts) -> Splice:
    """Returns the splice of JSON responses, for a request with offered tools."""
    return BlockingSplice(ChatSplicer(offer, facts.includes_usage))


def error_event(error: BridgeError, request_id: str) -> bytes:
    """Returns the error as an event, for a stream that has begun."""
    return b"data: " + error_body(error, request_id) + b"\n\n"
