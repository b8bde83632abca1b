"""OpenAI Chat Completions: what is read of a request, and the API's errors.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import msgspec

from ..errors import BridgeError
from ..model import Fold, RequestFacts
from . import body, openai, prompt
from .chat_fold import ChatReading, UsageFilter
from .tap import StreamTap, WholeTap

NAME = "chat"
PING = openai.PING
error_body = openai.error_body
_NULL = msgspec.Raw(b"null")


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


def error_event(error: BridgeError, request_id: str) -> bytes:
    """The same inside a stream."""
    return b"data: " + error_body(error, request_id) + b"\n\n"
