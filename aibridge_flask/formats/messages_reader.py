"""Anthropic Messages: the facts of an answer.

https://docs.anthropic.com/en/docs/build-with-claude/streaming
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import sse
from ..model import Failure, Thought, ToolCall, Turn, Usage
from . import body
from .tap import failure

_TEXT_DELTA = b'"text_delta"'
DELTA_HEAD = b"event: content_block_delta\n"
_TOOLS = ("tool_use", "server_tool_use", "mcp_tool_use")
_PLAIN = (
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
)


@dataclass(slots=True)
class _OpenBlock:
    """A content block that is being streamed."""

    start: Mapping[str, Any]
    deltas: list[str] = field(default_factory=list)


class MessagesReader:
    """What has been seen of one answer; `parts` are the newest run's, as `apart` takes it."""

    def __init__(self) -> None:
        self.parts = (b"", b"", b"")
        self.changed = False
        self.complete = False
        self._id = self._model = ""
        self._usage: dict[str, Any] = {}
        self._open: dict[int, _OpenBlock] = {}
        self._calls: list[ToolCall] = []
        self._thoughts: list[Thought] = []
        self._failure = Failure()

    def events_to_decode(self, run: bytes) -> Iterable[bytes]:
        self.parts = before, text, after = split_text_deltas(run)
        if text:
            return sse.split(before + after)
        return [event for event in sse.split(run) if not is_text(event)]

    def read_event(self, name: bytes, data: bytes) -> None:
        found = body.loads(data)
        handler = _HANDLERS.get(body.get_string(found, "type") or name.decode("utf-8", "replace"))
        if handler is not None and isinstance(found, dict):
            handler(self, found)

    def read_body(self, found: Any) -> None:
        self._start_message({"message": found})
        for block in body.get_array(found, "content"):
            self._close(_OpenBlock(block if isinstance(block, dict) else {}))
        self.complete = isinstance(found, dict)

    def end(self) -> None:
        """A cut stream leaves blocks open; what was seen of them counts."""
        for index in sorted(self._open):
            self._close(self._open[index])
        self._open.clear()

    def turn(self) -> Turn:
        self.changed = False
        return Turn(
            response_id=self._id,
            model=self._model,
            usage=usage(self._usage),
            tool_calls=tuple(self._calls),
            thoughts=tuple(self._thoughts),
            failure=self._failure,
        )

    def _start_message(self, found: Mapping[str, Any]) -> None:
        message = body.get_object(found, "message")
        self._id = self._id or body.get_string(message, "id")
        self._model = self._model or body.get_string(message, "model")
        self._count(message)

    def _start_block(self, found: Mapping[str, Any]) -> None:
        self._open[body.get_count(found, "index")] = _OpenBlock(body.get_object(found, "content_block"))

    def _grow_block(self, found: Mapping[str, Any]) -> None:
        block = self._open.get(body.get_count(found, "index"))
        delta = body.get_object(found, "delta")
        piece = body.get_string(delta, "thinking") or body.get_string(delta, "partial_json")
        if block is not None and piece:
            block.deltas.append(piece)

    def _stop_block(self, found: Mapping[str, Any]) -> None:
        block = self._open.pop(body.get_count(found, "index"), None)
        if block is not None:
            self._close(block)

    def _close(self, block: _OpenBlock) -> None:
        start, kind = block.start, body.get_string(block.start, "type")
        if kind in _TOOLS:
            text = "".join(block.deltas) or body.dumps(start.get("input") or {}).decode()
            call = ToolCall(body.get_string(start, "id"), body.get_string(start, "name"), text)
            self._calls.append(call)
            self.changed = True
        elif kind == "thinking":
            text = body.get_string(start, "thinking") + "".join(block.deltas)
            if text:
                self._thoughts.append(Thought(text, "thinking"))
                self.changed = True

    def _count(self, found: Mapping[str, Any]) -> None:
        """The counts are cumulative: a later one takes an earlier one's place."""
        told = body.get_object(found, "usage")
        self._usage.update({key: told[key] for key in told if told[key] is not None})
        self.changed = True

    def _stop_message(self, found: Mapping[str, Any]) -> None:
        self.complete = True

    def _fail(self, found: Mapping[str, Any]) -> None:
        error = body.get_object(found, "error")
        self._failure = failure(body.get_string(error, "type"), body.get_string(error, "message"))
        self.changed = True


_HANDLERS = {
    "message_start": MessagesReader._start_message,
    "content_block_start": MessagesReader._start_block,
    "content_block_delta": MessagesReader._grow_block,
    "content_block_stop": MessagesReader._stop_block,
    "message_delta": MessagesReader._count,
    "message_stop": MessagesReader._stop_message,
    "error": MessagesReader._fail,
}


def split_text_deltas(run: bytes) -> tuple[bytes, bytes, bytes]:
    """What is before the text deltas, these, and what is after them, where they stand together; else all
    is before them."""
    start = run.find(DELTA_HEAD)
    end = run.find(b"\n\n", run.rfind(DELTA_HEAD)) + 2
    if start < 0 or end < 2 or not is_text(run[start:end]):
        return run, b"", b""
    return run[:start], run[start:end], run[end:]


def is_text(run: bytes) -> bool:
    """Text deltas alone. The word cannot stand inside a text: its quotes would be escaped there."""
    count = run.count(_TEXT_DELTA)
    return count > 0 and count == run.count(DELTA_HEAD) == run.count(b"\n\n") == run.count(b"event: ")


def usage(told: Mapping[str, Any]) -> Usage:
    """The API's `usage`, whose `input_tokens` already leave the cached ones out."""
    further: dict[str, int] = {}
    for key, inner in told.items():
        if not isinstance(inner, Mapping):
            further.update(body.positive_counts({key: inner}) if key not in _PLAIN else {})
        elif key == "cache_creation":
            further.update({f"cache_{name}": count for name, count in body.positive_counts(inner).items()})
        else:
            prefix = "" if key == "server_tool_use" else key.removesuffix("_tokens_details") + "_"
            further.update({prefix + name: count for name, count in body.positive_counts(inner).items()})
    return Usage(
        input_tokens=body.get_count(told, "input_tokens"),
        output_tokens=body.get_count(told, "output_tokens"),
        cache_read_input_tokens=body.get_count(told, "cache_read_input_tokens"),
        cache_write_input_tokens=body.get_count(told, "cache_creation_input_tokens"),
        metadata=body.limit_counts(further),
    )
