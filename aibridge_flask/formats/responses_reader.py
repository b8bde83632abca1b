"""OpenAI Responses: reads the facts of a response.

https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from .. import sse
from ..model import Failure, Served, Thought, ToolCall, Turn, Usage
from . import body, openai
from .counts import merge_counts
from .failures import failure_in

UNREAD_EVENTS = tuple(
    b"event: response." + name
    for name in (b"output_text.", b"content_part.", b"function_call_arguments.", b"reasoning_",
                 b"custom_tool_call_input.", b"in_progress\n", b"refusal.", b"mcp_call_arguments.")
)  # fmt: skip
TERMINAL_EVENTS = ("response.completed", "response.failed", "response.incomplete")
ITEM_ADDED, ITEM_DONE = "response.output_item.added", "response.output_item.done"
# What a call of the API's own tools has beside its input: its names and state, and its result.
_NOT_INPUT = {
    "id", "call_id", "type", "status", "name", "namespace", "created_by", "caller", "execution", "agent",
    "result", "results", "output", "outputs", "error",
}  # fmt: skip


class ResponsesReader:
    """The facts read so far of one response."""

    def __init__(self) -> None:
        self.changed = False
        self.complete = False
        self._id = self._conversation_id = self._model = self._tier = ""
        self._uses: dict[str, int] = {}  # of what costs a fee
        self._usage: Mapping[str, Any] = {}
        self._open_items: dict[int | str, Mapping[str, Any]] = {}
        self._told: set[tuple[str, int | str]] = set()
        self._calls: list[ToolCall] = []
        self._thoughts: list[Thought] = []
        self._failure = Failure()

    def events_to_decode(self, events: bytes) -> Iterable[bytes]:
        """Skips deltas: `output_item.done` repeats an item whole."""
        return [event for event in sse.split(events) if not event.startswith(UNREAD_EVENTS)]

    def read_event(self, name: bytes, data: bytes) -> None:
        event = body.loads(data)
        kind = body.get_string(event, "type")
        if kind in TERMINAL_EVENTS or kind == "response.created":
            self._read_response(body.get_object(event, "response"))
            if kind in TERMINAL_EVENTS:
                self._read_output(body.get_object(event, "response"))
                self.complete = True
        elif kind == ITEM_ADDED:
            item = body.get_object(event, "item")
            self._open_items[item_key(event)] = item
        elif kind == ITEM_DONE:
            self._read_item(item_key(event), body.get_object(event, "item"))
        elif failure := failure_in(event, name):
            self._failure, self.changed = failure, True

    def read_body(self, value: Any) -> None:
        self._read_response(value)
        self._read_output(value)
        self.complete = isinstance(value, dict)

    def end(self) -> None:
        """Records the items that a stream left open when it was cut."""
        for key, item in list(self._open_items.items()):
            if not self._told & _names(key, item):
                self._read_item(key, item)

    def turn(self) -> Turn:
        self.changed = False
        return Turn(
            response_id=self._id,
            conversation_id=self._conversation_id,
            model=self._model,
            usage=self._usage_with_uses(),
            served=Served(self._tier),
            tool_calls=tuple(self._calls),
            thoughts=tuple(self._thoughts),
            failure=self._failure,
        )

    def _usage_with_uses(self) -> Usage:
        """Searches cost something each, and the `usage` of OpenAI does not count them; that of xAI does."""
        usage = openai.parse_usage(self._usage, "input", "output")
        return replace(usage, metadata={**self._uses, **usage.metadata}) if self._uses else usage

    def _read_response(self, response: Any) -> None:
        self._id = self._id or body.get_string(response, "id")
        conversation_id = body.get_string(body.get_object(response, "conversation"), "id")
        self._conversation_id = self._conversation_id or conversation_id
        self._model = body.get_identifier(response, "model") or self._model
        self._tier = body.get_identifier(response, "service_tier") or self._tier
        self._usage = merge_counts(self._usage, body.get_object(response, "usage"))
        failed = body.get_string(response, "status") == "failed"
        self._failure = failure_in(response) or (Failure("unknown") if failed else self._failure)
        self.changed = True

    def _read_output(self, response: Any) -> None:
        """Reads the items that no event has told before."""
        told = frozenset(self._told)
        for index, item in enumerate(body.get_array(response, "output")):
            if isinstance(item, Mapping) and not told & _names(index, item):
                self._read_item(index, item)

    def _read_item(self, key: int | str, item: Mapping[str, Any]) -> None:
        self._open_items.pop(key, None)
        self._told |= _names(key, item)
        kind = body.get_string(item, "type")
        action = body.get_string(body.get_object(item, "action"), "type")
        if kind == "file_search_call" or (kind == "web_search_call" and action == "search"):
            use = kind.replace("_call", "_requests")  # opening a page and finding in it are free
            self._uses[use] = self._uses.get(use, 0) + 1
        if kind.endswith("_call"):
            self._calls.append(_tool_call(item, kind))
        elif kind == "reasoning":
            self._add_thoughts(body.get_array(item, "summary"), "reasoning_summary")
            self._add_thoughts(body.get_array(item, "content"), "thinking")  # of models with open weights
        elif kind == "message" and item.get("phase") == "commentary":
            self._add_thoughts(body.get_array(item, "content"), "commentary")
        self.changed = True

    def _add_thoughts(self, parts: list[Any], source: str) -> None:
        texts = (body.get_string(part, "text") for part in parts)
        self._thoughts.extend(Thought(text, source) for text in texts if text)


def item_key(event: Mapping[str, Any]) -> int | str:
    """Returns what identifies an event's item: its index, since some upstreams send another id in each event;
    its id if there is no index."""
    index = event.get("output_index")
    if isinstance(index, int):
        return index
    return body.get_string(event, "item_id") or body.get_string(body.get_object(event, "item"), "id")


def _names(key: int | str, item: Mapping[str, Any]) -> set[tuple[str, int | str]]:
    """Returns all that an item is known by: some upstreams tell no index, some another id in each event."""
    kind, ids = body.get_string(item, "type"), (body.get_string(item, "id"), body.get_string(item, "call_id"))
    return {(kind, name) for name in (key, *ids) if name != ""}


def _tool_call(item: Mapping[str, Any], kind: str) -> ToolCall:
    """Converts an item. Calls of functions and of custom tools have a `call_id`. Calls of hosted tools, such
    as a web search, have only the item's id."""
    return ToolCall(
        id=body.get_string(item, "call_id") or body.get_string(item, "id"),
        name=body.get_string(item, "name") or kind.removesuffix("_call"),
        input=_input(item),
        item_id=body.get_string(item, "id"),
    )


def _input(item: Mapping[str, Any]) -> str:
    """Returns a call's input: each of the API's own tools has members of its own for it."""
    for name in ("arguments", "input"):
        if item.get(name) is not None:
            return _text(item[name])
    own = {name: value for name, value in item.items() if name not in _NOT_INPUT and value}
    return _text(own["action"] if own.keys() == {"action"} else own)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return body.dumps(value).decode() if value else ""
