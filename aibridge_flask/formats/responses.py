"""OpenAI Responses: what is read of a request, and the API's errors.

https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..errors import BridgeError
from ..model import Fold, RequestFacts
from . import body, openai, prompt
from .responses_fold import ResponsesReading
from .tap import StreamTap, WholeTap

NAME = "responses"
PING = openai.PING
error_body = openai.error_body
_NULL = msgspec.Raw(b"null")


class _Request(msgspec.Struct):
    model: msgspec.Raw = _NULL
    stream: msgspec.Raw = _NULL
    background: msgspec.Raw = _NULL
    input: str | list[msgspec.Raw] = ""


def read(data: bytes) -> RequestFacts:
    """The facts of a request's body; raises BadBody."""
    request = body.fields(data, _Request)
    item = _newest(request.input)
    is_result = body.string(item, "type").endswith("_output")
    own = prompt.texts(item) if item.get("role") == "user" else []
    return RequestFacts(
        model=body.text_of(request.model),
        streaming=body.value(request.stream) is True,
        prompt="\n".join(own),
        correlating_tool_call_id=body.string(item, "call_id") if is_result else "",
        background=body.value(request.background) is True,
    )


def _newest(given: Any) -> Any:
    if isinstance(given, str):
        return {"role": "user", "content": given}
    return prompt.newest(given)


def ask(data: bytes, facts: RequestFacts) -> bytes:
    """The body to send: the very same."""
    return data


def fold(facts: RequestFacts) -> Fold:
    """Reads an event stream."""
    return StreamTap(ResponsesReading())


def whole_fold() -> Fold:
    """Reads a JSON answer."""
    return WholeTap(ResponsesReading())


def error_event(error: BridgeError, request_id: str) -> bytes:
    """The same inside a stream."""
    said = openai.error_of(error)
    event = {"type": "error", "code": said["code"], "message": said["message"], "param": None}
    return b"event: error\ndata: " + body.dumps(event) + b"\n\n"
