"""Anthropic Messages: reads the facts of a response.

https://docs.anthropic.com/en/docs/build-with-claude/streaming
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import sse
from ..large_bytes import LARGE_BYTES
from ..model import Failure, Thought, ToolCall, Turn
from . import body
from .counts import merge_counts
from .failures import failure_in
from .messages_usage import inner_usages, parse_usage, served

_TEXT_DELTA = b'"text_delta"'
DELTA_HEAD = b"event: content_block_delta\n"
_BEGINNING_BYTES = 200
_TOOL_BLOCKS = ("tool_use", "server_tool_use", "mcp_tool_use")


@dataclass(slots=True)
class _OpenBlock:
    """A content block that is being streamed."""

    start: Mapping[str, Any]
    deltas: list[str] = field(default_factory=list)


class MessagesReader:
    """The facts read so far of one response.

    `parts` is what `split_text_deltas` returned for the latest events.
    """

    def __init__(self) -> None:
        self.parts = (b"", b"", b"")
        self.changed = False
        self.complete = False
        self._id = self._model = ""
        self._usage: dict[str, Any] = {}
        self._open_blocks: dict[int, _OpenBlock] = {}
        self._calls: list[ToolCall] = []
        self._thoughts: list[Thought] = []
        self._failure = Failure()

    def events_to_decode(self, events: bytes) -> Iterable[bytes]:
        if len(events) > LARGE_BYTES:
            self.parts = events, b"", b""
            return [event for event in sse.split(events) if not _begins_as_text(event)]
        if is_text(events):
            self.parts = b"", events, b""
            return ()
        self.parts = before, text, after = split_text_deltas(events)
        if text:
            return sse.split(before + after)
        return [event for event in sse.split(events) if not is_text(event)]

    def read_event(self, name: bytes, data: bytes) -> None:
        event = body.loads(data)
        self._fail(failure_in(event, name))
        handler = _HANDLERS.get(body.get_string(event, "type") or name.decode("utf-8", "replace"))
        if handler is not None and isinstance(event, dict):
            handler(self, event)

    def read_body(self, value: Any) -> None:
        self._fail(failure_in(value))
        self._start_message({"message": value})
        for block in body.get_array(value, "content"):
            self._close(_OpenBlock(block if isinstance(block, dict) else {}))
        self.complete = isinstance(value, dict)

    def end(self) -> None:
        """Records the blocks that a stream left open when it was cut."""
        for index in sorted(self._open_blocks):
            self._close(self._open_blocks[index])
        self._open_blocks.clear()

    def turn(self) -> Turn:
        self.changed = False
        return Turn(
            response_id=self._id,
            model=self._model,
            usage=parse_usage(self._usage),
            served=served(self._usage),
            inner_usages=tuple((model or self._model, usage) for model, usage in inner_usages(self._usage)),
            tool_calls=tuple(self._calls),
            thoughts=tuple(self._thoughts),
            failure=self._failure,
        )

    def _start_message(self, event: Mapping[str, Any]) -> None:
        message = body.get_object(event, "message")
        self._id = self._id or body.get_string(message, "id")
        self._model = self._model or body.get_identifier(message, "model")
        self._read_usage(message)

    def _start_block(self, event: Mapping[str, Any]) -> None:
        index, block = body.get_count(event, "index"), body.get_object(event, "content_block")
        self._open_blocks[index] = _OpenBlock(block)

    def _add_delta(self, event: Mapping[str, Any]) -> None:
        block = self._open_blocks.get(body.get_count(event, "index"))
        delta = body.get_object(event, "delta")
        piece = body.get_string(delta, "thinking") or body.get_string(delta, "partial_json")
        if block is not None and piece:
            block.deltas.append(piece)

    def _stop_block(self, event: Mapping[str, Any]) -> None:
        block = self._open_blocks.pop(body.get_count(event, "index"), None)
        if block is not None:
            self._close(block)

    def _close(self, block: _OpenBlock) -> None:
        start, kind = block.start, body.get_string(block.start, "type")
        if kind in _TOOL_BLOCKS:
            text = body.join_texts(block.deltas) or body.dumps(start.get("input") or {}).decode()
            call = ToolCall(body.get_string(start, "id"), body.get_string(start, "name"), text)
            self._calls.append(call)
            self.changed = True
        elif kind == "thinking":
            text = body.join_texts([body.get_string(start, "thinking"), *block.deltas])
            if text:
                self._thoughts.append(Thought(text, "thinking"))
                self.changed = True

    def _read_usage(self, value: Mapping[str, Any]) -> None:
        self._usage = merge_counts(self._usage, body.get_object(value, "usage"))
        self.changed = True

    def _stop_message(self, event: Mapping[str, Any]) -> None:
        self._read_usage(event)  # some upstreams tell it only here
        self.complete = True

    def _fail(self, failure: Failure) -> None:
        if failure:
            self._failure, self.changed = failure, True


_HANDLERS = {
    "message_start": MessagesReader._start_message,
    "content_block_start": MessagesReader._start_block,
    "content_block_delta": MessagesReader._add_delta,
    "content_block_stop": MessagesReader._stop_block,
    "message_delta": MessagesReader._read_usage,
    "message_stop": MessagesReader._stop_message,
}


def split_text_deltas(events: bytes) -> tuple[bytes, bytes, bytes]:
    """Returns the events before the text deltas, the text deltas, and the events after them.

    If the text deltas are not contiguous, all events are in the first part.
    """
    start = events.find(DELTA_HEAD)
    end = events.find(b"\n\n", events.rfind(DELTA_HEAD)) + 2
    if start < 0 or end < 2 or not is_text(events[start:end]):
        return events, b"", b""
    return events[:start], events[start:end], events[end:]


def _begins_as_text(event: bytes) -> bool:
    """As `is_text`, of one event, without looking through all of it."""
    return event.startswith(DELTA_HEAD) and _TEXT_DELTA in event[:_BEGINNING_BYTES]


def is_text(events: bytes) -> bool:
    """Whether all events are text deltas. The word cannot match in a text: its quotes would be escaped."""
    count = events.count(_TEXT_DELTA)
    is_delta = count > 0 and count == events.count(DELTA_HEAD)
    return is_delta and count == events.count(b"\n\n") == events.count(b"event: ")
