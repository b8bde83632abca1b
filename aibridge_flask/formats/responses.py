"""OpenAI Responses: reads requests, offers tools and writes the API's errors.

https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from ..errors import BridgeError
from ..model import Offer, RequestFacts, Tool
from ..protocols import Fold, Splice
from . import body, offering, openai, prompt, side_requests
from .long_texts import read_shortened
from .responses_reader import ResponsesReader
from .responses_splice import ResponsesSplicer
from .splice import BlockingSplice, StreamSplice
from .tap import BlockingTap, StreamTap

NAME = "responses"
PING = openai.PING
error_body = openai.error_body
refusal = openai.refusal
_NULL = msgspec.Raw(b"null")
_CONTINUED = {"previous_response_id": "Previous response", "conversation": "Conversation"}
_ENCRYPTED_CONTENT = "reasoning.encrypted_content"
_MODELS_WITHOUT_REASONING = ("gpt-3.5", "gpt-4", "gpt-5-chat", "chatgpt-")


class _ResponsesFields(msgspec.Struct):
    model: msgspec.Raw = _NULL
    stream: msgspec.Raw = _NULL
    background: msgspec.Raw = _NULL
    input: str | list[msgspec.Raw] = ""
    store: msgspec.Raw = _NULL
    previous_response_id: msgspec.Raw = _NULL
    conversation: msgspec.Raw = _NULL
    tools: msgspec.Raw = _NULL
    max_output_tokens: msgspec.Raw = _NULL


@read_shortened
def read(data: bytes) -> RequestFacts:
    """Reads the facts of a request's body. Raises InvalidBody."""
    request = body.decode_fields(data, _ResponsesFields)
    item = _last_item(request.input)
    is_result = body.get_string(item, "type").endswith("_output")
    text = "\n".join(prompt.user_texts(item)) if item.get("role") == "user" else ""
    return RequestFacts(
        model=body.to_identifier(request.model),
        streaming=body.decode_raw(request.stream) is True,
        prompt=text,
        side_kind=side_requests.kind_of(request.input, text, request.tools),
        correlating_tool_call_id=body.get_identifier(item, "call_id") if is_result else "",
        background=body.decode_raw(request.background) is True,
        continues=_continued(data, request),
        is_stored=request.store is _NULL or body.decode_raw(request.store) is not False,
        max_output=body.to_count(request.max_output_tokens),
    )


def _continued(data: bytes, request: _ResponsesFields) -> tuple[tuple[str, str], ...]:
    """Returns the stored objects that the request continues.

    A member that stands there twice counts each time, since parsers differ in which one they take.
    """
    if request.previous_response_id is _NULL and request.conversation is _NULL:
        return ()
    read = [(name, getattr(request, name)) for name in _CONTINUED]  # all that is known of a dense body
    raws = [(name, bytes(raw)) for name, raw in read if isinstance(raw, msgspec.Raw)]
    raws += [(name, raw) for name, raw in body.all_members(data) if name in _CONTINUED]
    return tuple(dict.fromkeys((_CONTINUED[name], id) for name, raw in raws for id in _ids(raw)))


def _ids(raw: bytes) -> Iterator[str]:
    """Yields the id that stands there by itself or in an object."""
    inner = [body.loads(member) for name, member in body.all_members(raw) if name == "id"]
    for value in (body.loads(raw), *inner):
        if isinstance(value, str) and value:
            yield value


def _last_item(input: Any) -> Any:
    if isinstance(input, str):
        return {"role": "user", "content": input}
    return prompt.last_message(input)


def upstream_body(data: bytes, facts: RequestFacts) -> bytes:
    """Returns the body to send: the client's, unchanged."""
    return data


def fold(facts: RequestFacts) -> Fold:
    """Returns the fold of an event stream."""
    return StreamTap(ResponsesReader())


def blocking_fold() -> Fold:
    """Returns the fold of a JSON response."""
    return BlockingTap(ResponsesReader())


def offer(data: bytes, facts: RequestFacts, tools: tuple[Tool, ...]) -> Offer:
    """Adds the tools after the client's own. Returns the body unchanged if it cannot.

    The model may call one tool at a time. A response that is not stored, be it that the organisation stores
    none, can be sent back only with its encrypted reasoning: the request asks for it.
    """
    members = offering.editable_members(data)
    own, include = members.get("tools", offering.NULL), members.get("include", offering.NULL)
    can_offer = offering.is_array(own) and offering.is_array(include) and _can_follow_up(members)
    new = openai.new_tools(tools, own) if can_offer else ()
    choice = body.loads(members.get("tool_choice", offering.NULL))
    if not new or choice == "none":
        return Offer(data)
    all_tools = offering.with_elements(own, after=offering.tools_json(_tool, new))
    changes = {"tools": all_tools, "parallel_tool_calls": b"false"}
    goes_back = members.get("conversation", offering.NULL) == offering.NULL
    included = body.loads(include) or ()
    adds_encrypted = goes_back and _has_reasoning(facts.model) and _ENCRYPTED_CONTENT not in included
    if adds_encrypted:
        changes["include"] = offering.with_elements(include, after=body.dumps(_ENCRYPTED_CONTENT))
    follow_up = {} if choice in (None, "auto") else offering.follow_up_choice(own, b'"auto"')
    is_unlinked = members.get("store") == b"false" or not goes_back
    made = offering.make_offer(members, changes, new, follow_up)
    return replace(made, strips_encrypted=adds_encrypted, is_unlinked=is_unlinked)


def _has_reasoning(model: str) -> bool:
    """Older models have no reasoning, and refuse a request that asks for it."""
    return not model.startswith(_MODELS_WITHOUT_REASONING)


def _can_follow_up(members: Mapping[str, bytes]) -> bool:
    """Whether the response's items can be appended to the input, and `tools` can be set.

    A prompt template's own tools are used only if the request has no `tools`: setting it would disable them.
    """
    input, template = members.get("input", offering.NULL), members.get("prompt", offering.NULL)
    if template != offering.NULL and members.get("tools", offering.NULL) == offering.NULL:
        return False
    return bool(members) and (input.startswith(b'"') or offering.is_array(input))


def _tool(tool: Tool) -> dict[str, Any]:
    """Without `strict` this API makes every property a required one."""
    fields = {"type": "function", "name": tool.id, "description": tool.description}
    return {**fields, "parameters": openai.tool_parameters(tool), "strict": False}


def splice(offer: Offer, facts: RequestFacts) -> Splice:
    """Returns the splice of event streams, for a request with offered tools."""
    return StreamSplice(ResponsesSplicer(offer))


def blocking_splice(offer: Offer, facts: RequestFacts) -> Splice:
    """Returns the splice of JSON responses, for a request with offered tools."""
    return BlockingSplice(ResponsesSplicer(offer))


def error_event(error: BridgeError, request_id: str) -> bytes:
    """Returns the error as an event, for a stream that has begun."""
    fields = openai.error_object(error)
    event = {"type": "error", "code": fields["code"], "message": fields["message"], "param": None}
    return b"event: error\ndata: " + body.dumps(event) + b"\n\n"
