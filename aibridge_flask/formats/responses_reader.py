"""OpenAI Responses: the facts of an answer.

https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .. import sse
from ..model import Failure, Thought, ToolCall, Turn
from . import body, openai

UNREAD_EVENTS = tuple(
    b"event: response." + name
    for name in (b"output_text.", b"content_part.", b"function_call_arguments.", b"reasoning_",
                 b"custom_tool_call_input.", b"in_progress\n", b"refusal.", b"mcp_call_arguments.")
)  # fmt: skip
TERMINAL_EVENTS = ("response.completed", "response.failed", "response.incomplete")
ITEM_ADDED, ITEM_DONE = "response.output_item.added", "response.output_item.done"


class ResponsesReader:
    """What has been seen of one answer."""

    def __init__(self) -> None:
        self.changed = False
        self.complete = False
        self._id = self._model = ""
        self._usage: Mapping[str, Any] = {}
        self._open: dict[int | str, Mapping[str, Any]] = {}
        self._calls: list[ToolCall] = []
        self._thoughts: list[Thought] = []
        self._failure = Failure()

    def events_to_decode(self, run: bytes) -> Iterable[bytes]:
        """All but the events that hold nothing new: an item tells it all when it is done."""
        return [event for event in sse.split(run) if not event.startswith(UNREAD_EVENTS)]

    def read_event(self, name: bytes, data: bytes) -> None:
        found = body.loads(data)
        kind = body.get_string(found, "type")
        if kind in TERMINAL_EVENTS or kind == "response.created":
            self._about(body.get_object(found, "response"))
            self.complete = kind in TERMINAL_EVENTS
        elif kind == ITEM_ADDED:
            item = body.get_object(found, "item")
            self._open[place(found)] = item
        elif kind == ITEM_DONE:
            self._open.pop(place(found), None)
            self._item(body.get_object(found, "item"))
        elif kind == "error":
            error = body.get_object(found, "error") or found
            self._failure, self.changed = openai.failure_from(error), True

    def read_body(self, found: Any) -> None:
        self._about(found if isinstance(found, Mapping) else {})
        for item in body.get_array(found, "output"):
            self._item(item if isinstance(item, Mapping) else {})
        self.complete = isinstance(found, dict)

    def end(self) -> None:
        """A cut stream leaves items open; what was seen of them counts."""
        for item in list(self._open.values()):
            self._item(item)

    def turn(self) -> Turn:
        self.changed = False
        return Turn(
            response_id=self._id,
            model=self._model,
            usage=openai.usage(self._usage, "input", "output"),
            tool_calls=tuple(self._calls),
            thoughts=tuple(self._thoughts),
            failure=self._failure,
        )

    def _about(self, response: Mapping[str, Any]) -> None:
        self._id = self._id or body.get_string(response, "id")
        self._model = body.get_string(response, "model") or self._model
        self._usage = body.get_object(response, "usage") or self._usage
        if body.get_string(response, "status") == "failed" or body.get_object(response, "error"):
            self._failure = openai.failure_from(body.get_object(response, "error"))
        self.changed = True

    def _item(self, item: Mapping[str, Any]) -> None:
        kind = body.get_string(item, "type")
        if kind.endswith("_call"):
            self._calls.append(_call(item, kind))
        elif kind == "reasoning":
            self._think(body.get_array(item, "summary"), "reasoning_summary")
        elif kind == "message" and item.get("phase") == "commentary":
            self._think(body.get_array(item, "content"), "commentary")
        self.changed = True

    def _think(self, parts: list[Any], source: str) -> None:
        said = (body.get_string(part, "text") for part in parts)
        self._thoughts.extend(Thought(text, source) for text in said if text)


def place(found: Mapping[str, Any]) -> int | str:
    """What an event's item is known by: some upstreams give it another id in each event."""
    index = found.get("output_index")
    if isinstance(index, int):
        return index
    return body.get_string(found, "item_id") or body.get_string(body.get_object(found, "item"), "id")


def _call(item: Mapping[str, Any], kind: str) -> ToolCall:
    """Calls of functions and of custom tools carry a `call_id`; hosted tools, such as a web
    search, have their item's id alone and tell what they do in `action`."""
    told = body.get_string(item, "arguments") or body.get_string(item, "input")
    action = body.get_object(item, "action")
    return ToolCall(
        id=body.get_string(item, "call_id") or body.get_string(item, "id"),
        name=body.get_string(item, "name") or kind.removesuffix("_call"),
        input=told or (body.dumps(dict(action)).decode() if action else ""),
        item_id=body.get_string(item, "id"),
    )
