"""OpenAI Chat Completions: what is read of a request, and the API's errors.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from ..errors import BridgeError
from ..model import Fold, Offer, RequestFacts, Splice, Tool
from . import body, offering, openai, prompt
from .chat_reader import ChatReader, UsageFilter
from .chat_splice import ChatSplicer
from .splice import BlockingSplice, StreamSplice
from .tap import BlockingTap, StreamTap

NAME = "chat"
PING = openai.PING
error_body = openai.error_body
_NULL = msgspec.Raw(b"null")
_LONGEST = 1024  # of a description: the API refuses the whole request for a longer one
_ONE_BY_ONE = re.compile(r"(?:.*/)?o\d")  # models that never call in parallel, and refuse the switch


class _ChatFields(msgspec.Struct):
    model: msgspec.Raw = _NULL
    stream: msgspec.Raw = _NULL
    stream_options: msgspec.Raw = _NULL
    messages: list[msgspec.Raw] = []


def read(data: bytes) -> RequestFacts:
    """The facts of a request's body; raises BadBody."""
    request = body.decode_fields(data, _ChatFields)
    message = prompt.last_message(request.messages)
    result = body.get_string(message, "tool_call_id") if message.get("role") == "tool" else ""
    streaming = body.value(request.stream) is True
    options = body.value(request.stream_options)
    asks = isinstance(options, dict) and options.get("include_usage") is True
    return RequestFacts(
        model=body.to_text(request.model),
        streaming=streaming,
        prompt=prompt.last_text(message),
        correlating_tool_call_id=result,
        includes_usage=asks or not streaming,
    )


def upstream_body(data: bytes, facts: RequestFacts) -> bytes:
    """The body to send: a stream's usage is asked for if the client does not."""
    if facts.includes_usage:
        return data
    options = body.value(body.decode_fields(data, _ChatFields).stream_options)
    asked = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    return body.set_field(data, "stream_options", body.dumps(asked))


def fold(facts: RequestFacts) -> Fold:
    """Reads an event stream; keeps the usage from a client that did not ask for it."""
    return StreamTap(ChatReader()) if facts.includes_usage else UsageFilter(ChatReader())


def blocking_fold() -> Fold:
    """Reads a JSON answer."""
    return BlockingTap(ChatReader())


def offer(data: bytes, facts: RequestFacts, tools: tuple[Tool, ...]) -> Offer:
    """The tools stand after the client's own, and the model picks one at a time."""
    found = offering.members(data)
    own = found.get("tools", offering.NULL)
    new = offering.without_clashes(tools, own) if offering.is_array(own) and _goes_on(found) else ()
    choice = body.loads(found.get("tool_choice", offering.NULL))
    if not new or choice == "none":
        return Offer(data)
    changes = {"tools": offering.with_elements(own, after=offering.tools_json(_tool, new))}
    if not _ONE_BY_ONE.match(facts.model):
        changes["parallel_tool_calls"] = b"false"
    later = {} if choice in (None, "auto") else offering.follow_up_choice(own, b'"auto"')
    return offering.make_offer(found, changes, new, later)


def _goes_on(found: Mapping[str, bytes]) -> bool:
    """Whether one answer is asked for, whose calls are as this API has them today."""
    single = found.get("n", offering.NULL) in (b"1", offering.NULL)
    legacy = found.get("functions", offering.NULL) != offering.NULL
    return single and not legacy and found.get("messages", b"").startswith(b"[")


def _tool(tool: Tool) -> dict[str, Any]:
    about = {"name": tool.id, "description": tool.description[:_LONGEST]}
    return {"type": "function", "function": {**about, "parameters": openai.parameters(tool)}}


def splice(offer: Offer, facts: RequestFacts) -> Splice:
    """Reads an event stream where tools were offered."""
    return StreamSplice(ChatSplicer(offer, facts.includes_usage))


def blocking_splice(offer: Offer, facts: RequestFacts) -> Splice:
    """Reads a JSON answer where tools were offered."""
    return BlockingSplice(ChatSplicer(offer, facts.includes_usage))


def error_event(error: BridgeError, request_id: str) -> bytes:
    """The same inside a stream."""
    return b"data: " + error_body(error, request_id) + b"\n\n"
