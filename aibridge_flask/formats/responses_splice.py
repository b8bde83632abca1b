"""OpenAI Responses: one response of all that the model said while the bridge ran tools for it."""

from __future__ import annotations

from typing import Any

from ..model import Offer, ToolCall, ToolResult
from . import body, tool_results
from .offering import NULL, with_elements
from .responses_items import VisibleItems
from .responses_reader import ResponsesReader
from .responses_round import Round, ShownSoFar
from .splice import Results


class ResponsesSplicer:
    def __init__(self, offer: Offer) -> None:
        self._request, self._later = body.members(offer.body), offer.follow_up_members
        ids, link = frozenset(tool.id for tool in offer.tools), self._request.get("store", NULL)
        unlinked = link == b"false" or self._request.get("conversation", NULL) != NULL
        self._view = VisibleItems(ids, offer.strips_encrypted, unlinked)
        self._round = Round(self._view, ShownSoFar())

    @property
    def awaits_tools(self) -> bool:
        return self._round.awaits_tools

    def new_reader(self) -> ResponsesReader:
        return ResponsesReader()

    def filter_events(self, run: bytes) -> bytes:
        return self._round.filter_events(run)

    def flush(self) -> bytes:
        return self._round.flush()

    def filter_body(self, data: bytes) -> bytes:
        return self._round.filter_body(data)

    def follow_up(self, results: Results) -> bytes:
        """A conversation keeps what was said; else all of it is sent again."""
        given = [body.dumps(_output(call, result)) for call, result in results]
        if self._request.get("conversation", NULL) == NULL:
            before, new = _as_items(self._request.get("input", NULL)), [*self._round.items, *given]
        else:
            before, new = NULL, given
        self._request = {**self._request, **self._later, "input": with_elements(before, after=b",".join(new))}
        self._round = Round(self._view, self._round.shown())
        return body.join_members(self._request)


def _as_items(given: bytes) -> bytes:
    if not given.startswith(b'"'):
        return given
    return b"[" + body.join_members({"type": b'"message"', "role": b'"user"', "content": given}) + b"]"


def _output(call: ToolCall, result: ToolResult) -> dict[str, Any]:
    parts = tool_results.parts(result)
    told: Any = [_content(part) for part in parts]
    if not any(part.picture for part in parts):
        told = tool_results.as_text(result)
    elif result.is_error:
        told = [_content(tool_results.ContentPart("Error:")), *told]
    return {"type": "function_call_output", "call_id": call.id, "output": told}


def _content(part: tool_results.ContentPart) -> dict[str, Any]:
    if not part.picture:
        return {"type": "input_text", "text": part.text}
    return {"type": "input_image", "image_url": f"data:{part.media_type};base64,{part.picture}"}
