"""OpenAI Chat Completions: the facts of an answer.

https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .. import sse
from ..model import Failure, Thought, ToolCall, Turn
from . import body, openai
from .tap import StreamTap

# What may carry a fact; inside a text these quotes would be escaped.
_NEEDLES = (b"_call", b'"error"', b'"reasoning', b"[DONE]")
_NO_USAGE = (b'"usage":null', b'"usage": null')


class CallNumbering:
    """Tells an answer's tool calls apart, whose pieces come by index. Some upstreams give no index, some
    the same one to all calls: then a new id begins a new call."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, int], int] = {}
        self._ids: list[str] = []

    def number(self, choice: int, position: int, piece: Any) -> int:
        """Which call, counted from 0, the piece at a position in its chunk is of."""
        index = piece.get("index") if isinstance(piece, Mapping) else None
        key = (choice, index if isinstance(index, int) else ~position)
        id, number = body.get_string(piece, "id"), self._numbers.get(key, -1)
        if number < 0 or (id and call_name(piece) and self._ids[number] not in ("", id)):
            self._numbers[key] = number = len(self._ids)
            self._ids.append(id)
        self._ids[number] = self._ids[number] or id
        return number


def call_name(piece: Any) -> str:
    """The tool that is called; most pieces do not say it."""
    function, custom = body.get_object(piece, "function"), body.get_object(piece, "custom")
    return body.get_string(function, "name") or body.get_string(custom, "name")


class ChatReader:
    """What has been seen of one answer. Tool calls of a stream come in pieces; they are whole when
    it ends."""

    def __init__(self) -> None:
        self.changed = False
        self.complete = False
        self._id = self._model = ""
        self._usage: Mapping[str, Any] = {}
        self._pieces = CallNumbering()
        self._open: dict[int, dict[str, str]] = {}
        self._calls: list[ToolCall] = []
        self._thinking: dict[int, list[str]] = {}
        self._thoughts: list[Thought] = []
        self._failure = Failure()

    def events_to_decode(self, run: bytes) -> Iterable[bytes]:
        if self._is_plain(run):
            return ()
        return (event for event in sse.split(run) if not self._is_plain(event))

    def _is_plain(self, run: bytes) -> bool:
        return bool(self._id) and run.startswith(b"data: {") and not _may_matter(run)

    def read_event(self, name: bytes, data: bytes) -> None:
        if data.strip() == b"[DONE]":
            self.complete = True
            self._close()
            return
        found = body.loads(data)
        self._about(found)
        for choice in body.get_array(found, "choices"):
            self._grow(body.get_count(choice, "index"), body.get_object(choice, "delta"))

    def read_body(self, found: Any) -> None:
        self._about(found)
        for choice in body.get_array(found, "choices"):
            self._grow(body.get_count(choice, "index"), body.get_object(choice, "message"))
        self.complete = isinstance(found, dict)

    def end(self) -> None:
        self._close()

    def turn(self) -> Turn:
        self.changed = False
        return Turn(
            response_id=self._id,
            model=self._model,
            usage=openai.usage(self._usage, "prompt", "completion"),
            tool_calls=tuple(self._calls),
            thoughts=tuple(self._thoughts),
            failure=self._failure,
        )

    def _about(self, found: Any) -> None:
        if not self._id and body.get_string(found, "id"):
            self._id = body.get_string(found, "id")
            self.changed = True
        self._model = self._model or body.get_string(found, "model")
        if body.get_object(found, "usage"):
            self._usage, self.changed = body.get_object(found, "usage"), True
        if body.get_object(found, "error"):
            self._failure = openai.failure_from(body.get_object(found, "error"))
            self.changed = True

    def _grow(self, choice: int, delta: Mapping[str, Any]) -> None:
        thinking = body.get_string(delta, "reasoning_content") or body.get_string(delta, "reasoning_text")
        if thinking:
            self._thinking.setdefault(choice, []).append(thinking)
        for position, piece in enumerate(body.get_array(delta, "tool_calls")):
            if isinstance(piece, Mapping):
                number = self._pieces.number(choice, position, piece)
                self._grow_call(self._open.setdefault(number, {}), piece)
        if body.get_object(delta, "function_call"):  # what came before tool_calls
            self._grow_call(self._open.setdefault(~choice, {}), {"function": delta["function_call"]})

    def _grow_call(self, call: dict[str, str], piece: Any) -> None:
        kind = "custom" if body.get_object(piece, "custom") else "function"
        inner = body.get_object(piece, kind)
        call["id"] = call.get("id") or body.get_string(piece, "id")
        call["name"] = call.get("name") or call_name(piece)
        said = body.get_string(inner, "arguments") or body.get_string(inner, "input")
        call["input"] = call.get("input", "") + said

    def _close(self) -> None:
        for call in self._open.values():
            self._calls.append(ToolCall(call["id"], call["name"], call["input"]))
        for pieces in self._thinking.values():
            self._thoughts.append(Thought("".join(pieces), "thinking"))
        self.changed = self.changed or bool(self._open or self._thinking)
        self._open.clear()
        self._thinking.clear()


def _may_matter(run: bytes) -> bool:
    for needle in _NEEDLES:
        if needle in run:
            return True
    return has_usage(run)


def has_usage(run: bytes) -> bool:
    return b'"usage"' in run and run.count(b'"usage"') > sum(map(run.count, _NO_USAGE))


class UsageFilter(StreamTap):
    """Gives out whole events, all but the usage chunk that the client did not ask for."""

    exact = True

    def feed(self, piece: bytes) -> bytes:
        run = self._scanner.feed(piece)
        if not run:
            return run
        self._read(run)
        if b'"usage"' not in run:
            return run
        return b"".join([event for event in sse.split(run) if self._passes(event)])

    def end(self) -> bytes:
        rest = self._scanner.flush()
        self._read(rest)
        self._reading.end()
        return rest if self._passes(rest) else b""

    def _passes(self, event: bytes) -> bool:
        if b'"usage"' not in event or any(null in event for null in _NO_USAGE):
            return True
        found = body.loads(sse.parse(event).data)
        extra = bool(body.get_object(found, "usage")) and found.get("choices") == []
        self.exact = self.exact and not extra
        return not extra
