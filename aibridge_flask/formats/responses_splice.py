"""OpenAI Responses: joins the responses of a request into one, while the bridge runs tools in between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..model import Offer, ToolCall, ToolResult
from . import body, tool_results
from .offering import NULL, with_elements
from .responses_items import VisibleItems
from .responses_reader import ResponsesReader
from .responses_round import Round, ShownSoFar
from .splice import CallResults


class ResponsesSplicer:
    def __init__(self, offer: Offer) -> None:
        self._offer = offer
        self._request: Mapping[str, bytes] = {}  # its members, once a request follows
        ids = frozenset(tool.id for tool in offer.tools)
        self._visible_items = VisibleItems(ids, offer.strips_encrypted, offer.is_unlinked)
        self._round = Round(self._visible_items, ShownSoFar())

    @property
    def awaits_tools(self) -> bool:
        return self._round.awaits_tools

    def new_reader(self) -> ResponsesReader:
        return ResponsesReader()

    def filter_events(self, events: bytes) -> bytes:
        return self._round.filter_events(events)

    def flush(self) -> bytes:
        return self._round.flush()

    def filter_body(self, data: bytes) -> bytes:
        return self._round.filter_body(data)

    def follow_up(self, results: CallResults) -> bytes:
        """Sends only the results if the API stores the conversation, else all items so far."""
        outputs = [body.dumps(_output(call, result)) for call, result in results]
        request = self._request or body.split_members(self._offer.body)
        if request.get("conversation", NULL) == NULL:
            input, new = _input_items(request.get("input", NULL)), [*self._round.items, *outputs]
        else:
            input, new = NULL, outputs
        self._request = {
            **request,
            **self._offer.follow_up_members,
            "input": with_elements(input, after=b",".join(new)),
        }
        self._round = Round(self._visible_items, self._round.shown_so_far())
        return body.join_members(self._request)


def _input_items(input: bytes) -> bytes:
    """Returns the request's `input` as an array: it may be a text."""
    if not input.startswith(b'"'):
        return input
    return b"[" + body.join_members({"type": b'"message"', "role": b'"user"', "content": input}) + b"]"


def _output(call: ToolCall, result: ToolResult) -> dict[str, Any]:
    parts = tool_results.content_parts(result)
    output: Any = [_content_part(part) for part in parts]
    if not any(part.image for part in parts):
        output = tool_results.as_text(result)
    elif result.is_error:
        output = [_content_part(tool_results.ContentPart("Error:")), *output]
    return {"type": "function_call_output", "call_id": call.id, "output": output}


def _content_part(part: tool_results.ContentPart) -> dict[str, Any]:
    if not part.image:
        return {"type": "input_text", "text": part.text}
    return {"type": "input_image", "image_url": f"data:{part.media_type};base64,{part.image}"}
