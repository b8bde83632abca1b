"""OpenAI Responses: one response of all that the model said while the bridge ran tools for it."""

from __future__ import annotations

from typing import Any

from ..model import Offer, ToolCall, ToolResult
from . import body, tool_results
from .offering import NULL, grown
from .responses_items import View
from .responses_reader import ResponsesReading
from .responses_round import Round, Shown
from .splice import Results


class ResponsesSplicer:
    def __init__(self, offer: Offer) -> None:
        self._request, self._later = body.members(offer.body), offer.later
        ids, link = frozenset(tool.id for tool in offer.tools), self._request.get("store", NULL)
        unlinked = link == b"false" or self._request.get("conversation", NULL) != NULL
        self._view = View(ids, offer.conceals, unlinked)
        self._round = Round(self._view, Shown())

    @property
    def wants(self) -> bool:
        return self._round.wants

    def reading(self) -> ResponsesReading:
        return ResponsesReading()

    def run(self, run: bytes) -> bytes:
        return self._round.run(run)

    def rest(self) -> bytes:
        return self._round.rest()

    def whole(self, data: bytes) -> bytes:
        return self._round.whole(data)

    def follow_up(self, results: Results) -> bytes:
        """A conversation keeps what was said; else all of it is sent again."""
        given = [body.dumps(_output(call, result)) for call, result in results]
        if self._request.get("conversation", NULL) == NULL:
            before, new = _as_items(self._request.get("input", NULL)), [*self._round.items, *given]
        else:
            before, new = NULL, given
        self._request = {**self._request, **self._later, "input": grown(before, after=b",".join(new))}
        self._round = Round(self._view, self._round.shown())
        return body.joined(self._request)


def _as_items(given: bytes) -> bytes:
    if not given.startswith(b'"'):
        return given
    return b"[" + body.joined({"type": b'"message"', "role": b'"user"', "content": given}) + b"]"


def _output(call: ToolCall, result: ToolResult) -> dict[str, Any]:
    parts = tool_results.parts(result)
    told: Any = [_content(part) for part in parts]
    if not any(part.picture for part in parts):
        told = tool_results.as_text(result)
    elif result.is_error:
        told = [_content(tool_results.Part("Error:")), *told]
    return {"type": "function_call_output", "call_id": call.id, "output": told}


def _content(part: tool_results.Part) -> dict[str, Any]:
    if not part.picture:
        return {"type": "input_text", "text": part.text}
    return {"type": "input_image", "image_url": f"data:{part.media_type};base64,{part.picture}"}
