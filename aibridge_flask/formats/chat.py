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
from .chat_reader import ChatReading, UsageFilter
from .chat_splice import ChatSplicer
from .splice import StreamSplice, WholeSplice
from .tap import StreamTap, WholeTap

NAME = "chat"
PING = openai.PING
error_body = openai.error_body
_NULL = msgspec.Raw(b"null")
_LONGEST = 1024  # of a description: the API refuses the whole request for a longer one
_ONE_BY_ONE = re.compile(r"(?:.*/)?o\d")  # models that never call in parallel, and refuse the switch


class _Request(msgspec.Struct):
    model: msgspec.Raw = _NULL
    stream: msgspec.Raw = _NULL
    stream_options: msgspec.Raw = _NULL
    messages: list[msgspec.Raw] = []


def read(data: bytes) -> RequestFacts:
    """The facts of a request's body; raises BadBody."""
    request = body.fields(data, _Request)
    message = prompt.newest(request.messages)
    result = body.string(message, "tool_call_id") if message.get("role") == "tool" else ""
    streaming = body.value(request.stream) is True
    options = body.value(request.stream_options)
    asks = isinstance(options, dict) and options.get("include_usage") is True
    return RequestFacts(
        model=body.text_of(request.model),
        streaming=streaming,
        prompt=prompt.last_text(message),
        correlating_tool_call_id=result,
        asks_usage=asks or not streaming,
    )


def ask(data: bytes, facts: RequestFacts) -> bytes:
    """The body to send: a stream's usage is asked for if the client does not."""
    if facts.asks_usage:
        return data
    options = body.value(body.fields(data, _Request).stream_options)
    asked = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    return body.set_field(data, "stream_options", body.dumps(asked))


def fold(facts: RequestFacts) -> Fold:
    """Reads an event stream; keeps the usage from a client that did not ask for it."""
    return StreamTap(ChatReading()) if facts.asks_usage else UsageFilter(ChatReading())


def whole_fold() -> Fold:
    """Reads a JSON answer."""
    return WholeTap(ChatReading())


def offer(data: bytes, facts: RequestFacts, tools: tuple[Tool, ...]) -> Offer:
    """The tools stand after the client's own, and the model picks one at a time."""
    found = offering.members(data)
    own = found.get("tools", offering.NULL)
    new = offering.fresh(tools, own) if offering.is_array(own) and _goes_on(found) else ()
    choice = body.loads(found.get("tool_choice", offering.NULL))
    if not new or choice == "none":
        return Offer(data)
    changes = {"tools": offering.grown(own, after=offering.listed(_tool, new))}
    if not _ONE_BY_ONE.match(facts.model):
        changes["parallel_tool_calls"] = b"false"
    later = {} if choice in (None, "auto") else offering.released(own, b'"auto"')
    return offering.made(found, changes, new, later)


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
    return StreamSplice(ChatSplicer(offer, facts.asks_usage))


def whole_splice(offer: Offer, facts: RequestFacts) -> Splice:
    """Reads a JSON answer where tools were offered."""
    return WholeSplice(ChatSplicer(offer, facts.asks_usage))


def error_event(error: BridgeError, request_id: str) -> bytes:
    """The same inside a stream."""
    return b"data: " + error_body(error, request_id) + b"\n\n"
