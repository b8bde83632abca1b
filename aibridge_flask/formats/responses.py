"""OpenAI Responses: what is read of a request, and the API's errors.

https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from ..errors import BridgeError
from ..model import Fold, Offer, RequestFacts, Splice, Tool
from . import body, offering, openai, prompt
from .responses_reader import ResponsesReader
from .responses_splice import ResponsesSplicer
from .splice import BlockingSplice, StreamSplice
from .tap import BlockingTap, StreamTap

NAME = "responses"
PING = openai.PING
error_body = openai.error_body
_NULL = msgspec.Raw(b"null")
_ENCRYPTED = "reasoning.encrypted_content"
_THOUGHTLESS = ("gpt-3.5", "gpt-4", "chatgpt-4o")


class _ResponsesFields(msgspec.Struct):
    model: msgspec.Raw = _NULL
    stream: msgspec.Raw = _NULL
    background: msgspec.Raw = _NULL
    input: str | list[msgspec.Raw] = ""


def read(data: bytes) -> RequestFacts:
    """The facts of a request's body; raises BadBody."""
    request = body.decode_fields(data, _ResponsesFields)
    item = _newest(request.input)
    is_result = body.get_string(item, "type").endswith("_output")
    own = prompt.texts(item) if item.get("role") == "user" else []
    return RequestFacts(
        model=body.to_text(request.model),
        streaming=body.value(request.stream) is True,
        prompt="\n".join(own),
        correlating_tool_call_id=body.get_string(item, "call_id") if is_result else "",
        background=body.value(request.background) is True,
    )


def _newest(given: Any) -> Any:
    if isinstance(given, str):
        return {"role": "user", "content": given}
    return prompt.last_message(given)


def upstream_body(data: bytes, facts: RequestFacts) -> bytes:
    """The body to send: the very same."""
    return data


def fold(facts: RequestFacts) -> Fold:
    """Reads an event stream."""
    return StreamTap(ResponsesReader())


def blocking_fold() -> Fold:
    """Reads a JSON answer."""
    return BlockingTap(ResponsesReader())


def offer(data: bytes, facts: RequestFacts, tools: tuple[Tool, ...]) -> Offer:
    """The tools stand after the client's own, and the model picks one at a time. What is not stored can
    be sent back only with its encrypted thoughts: those are asked for."""
    found = offering.members(data)
    own, include = found.get("tools", offering.NULL), found.get("include", offering.NULL)
    shaped = offering.is_array(own) and offering.is_array(include) and _goes_on(found)
    new = offering.without_clashes(tools, own) if shaped else ()
    choice = body.loads(found.get("tool_choice", offering.NULL))
    if not new or choice == "none":
        return Offer(data)
    listed = offering.with_elements(own, after=offering.tools_json(_tool, new))
    changes = {"tools": listed, "parallel_tool_calls": b"false"}
    unstored = found.get("store", offering.NULL) == b"false"
    lacks = unstored and _thinks(facts.model) and _ENCRYPTED not in (body.loads(include) or ())
    if lacks:
        changes["include"] = offering.with_elements(include, after=body.dumps(_ENCRYPTED))
    later = {} if choice in (None, "auto") else offering.follow_up_choice(own, b'"auto"')
    return replace(offering.make_offer(found, changes, new, later), strips_encrypted=lacks)


def _thinks(model: str) -> bool:
    """Older models have no thoughts, and refuse to be asked for them."""
    return not model.startswith(_THOUGHTLESS)


def _goes_on(found: Mapping[str, bytes]) -> bool:
    """Whether the answer's items can be put after the input, and `tools` takes no other's place: a
    prompt template's own stand only where the request names none."""
    given, template = found.get("input", offering.NULL), found.get("prompt", offering.NULL)
    if template != offering.NULL and found.get("tools", offering.NULL) == offering.NULL:
        return False
    return bool(found) and (given.startswith(b'"') or offering.is_array(given))


def _tool(tool: Tool) -> dict[str, Any]:
    """Where `strict` is left out, this API makes every property a required one."""
    shape = {"type": "function", "name": tool.id, "description": tool.description}
    return {**shape, "parameters": openai.parameters(tool), "strict": False}


def splice(offer: Offer, facts: RequestFacts) -> Splice:
    """Reads an event stream where tools were offered."""
    return StreamSplice(ResponsesSplicer(offer))


def blocking_splice(offer: Offer, facts: RequestFacts) -> Splice:
    """Reads a JSON answer where tools were offered."""
    return BlockingSplice(ResponsesSplicer(offer))


def error_event(error: BridgeError, request_id: str) -> bytes:
    """The same inside a stream."""
    said = openai.error_of(error)
    event = {"type": "error", "code": said["code"], "message": said["message"], "param": None}
    return b"event: error\ndata: " + body.dumps(event) + b"\n\n"
