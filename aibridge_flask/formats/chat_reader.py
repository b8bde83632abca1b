"""OpenAI Chat Completions: reads the facts of a response.

https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .. import sse
from ..model import Failure, Served, Thought, ToolCall, Turn
from . import body, openai
from .chat_numbering import CallNumbering, call_name
from .chat_thoughts import StreamedThoughts
from .counts import merge_counts
from .failures import failure_in
from .tap import StreamTap

# Events with facts contain one of these. They cannot match inside a text: its quotes would be escaped.
_FACT_MARKERS = (b"_call", b'"error"', b'"reasoning', b'"thinking"', b"[DONE]", b"\nevent: error")
_NULL_USAGE = (b'"usage":null', b'"usage": null')


class ChatReader:
    """The facts read so far of one response. Tool calls of a stream arrive in pieces; they are whole at its
    end."""

    def __init__(self) -> None:
        self.changed = False
        self.complete = False
        self._id = self._model = self._tier = ""
        self._usage: Mapping[str, Any] = {}
        self._numbering = CallNumbering()
        self._open_calls: dict[int, dict[str, str]] = {}
        self._calls: list[ToolCall] = []
        self._open_thoughts = StreamedThoughts()
        self._thoughts: list[Thought] = []
        self._failure = Failure()

    def events_to_decode(self, events: bytes) -> Iterable[bytes]:
        if self._is_plain_text(events):
            return ()
        return (event for event in sse.split(events) if not self._is_plain_text(event))

    def _is_plain_text(self, events: bytes) -> bool:
        return bool(self._id) and events.startswith(b"data: {") and not _may_have_facts(events)

    def read_event(self, name: bytes, data: bytes) -> None:
        if data.strip() == b"[DONE]":
            self.complete = True
            self._close()
            return
        chunk = body.loads(data)
        self._fail(failure_in(chunk, name))
        self._read_envelope(chunk)
        for choice in body.get_array(chunk, "choices"):
            self._add_delta(body.get_count(choice, "index"), body.get_object(choice, "delta"))

    def read_body(self, value: Any) -> None:
        self._read_envelope(value)
        for choice in body.get_array(value, "choices"):
            self._add_delta(body.get_count(choice, "index"), body.get_object(choice, "message"))
        self.complete = isinstance(value, dict)

    def end(self) -> None:
        self._close()

    def turn(self) -> Turn:
        self.changed = False
        return Turn(
            response_id=self._id,
            model=self._model,
            usage=openai.parse_usage(self._usage, "prompt", "completion"),
            served=Served(self._tier),
            tool_calls=tuple(self._calls),
            thoughts=tuple(self._thoughts),
            failure=self._failure,
        )

    def _read_envelope(self, value: Any) -> None:
        """Reads id, model, usage and error of a chunk or a whole response."""
        if not self._id and body.get_string(value, "id"):
            self._id = body.get_string(value, "id")
            self.changed = True
        self._model = self._model or body.get_identifier(value, "model")
        self._tier = body.get_identifier(value, "service_tier") or self._tier
        for holder in (value, body.get_object(value, "x_groq"), *body.get_array(value, "choices")):
            if body.get_object(holder, "usage"):  # Moonshot tells it in the choice, Groq beside
                self._usage, self.changed = merge_counts(self._usage, holder["usage"]), True
        for holder in (*body.get_array(value, "choices"), value):
            self._fail(failure_in(holder))

    def _fail(self, failure: Failure) -> None:
        if failure:
            self._failure, self.changed = failure, True

    def _add_delta(self, choice: int, delta: Mapping[str, Any]) -> None:
        self._open_thoughts.add(choice, delta)
        for position, piece in enumerate(body.get_array(delta, "tool_calls")):
            if isinstance(piece, body.OBJECT):
                number = self._numbering.call_number(choice, position, piece)
                self._add_piece(self._open_calls.setdefault(number, {}), piece)
        if body.get_object(delta, "function_call"):  # the predecessor of `tool_calls`
            self._add_piece(self._open_calls.setdefault(~choice, {}), {"function": delta["function_call"]})

    def _add_piece(self, call: dict[str, str], piece: Any) -> None:
        kind = "custom" if body.get_object(piece, "custom") else "function"
        function = body.get_object(piece, kind)
        call["id"] = call.get("id") or body.get_string(piece, "id")
        call["name"] = call.get("name") or call_name(piece)
        input = body.get_string(function, "arguments") or body.get_string(function, "input")
        call["input"] = call.get("input", "") + input

    def _close(self) -> None:
        """Records the calls and thoughts that were streamed."""
        for call in self._open_calls.values():
            self._calls.append(ToolCall(call["id"], call["name"], body.join_texts([call["input"]])))
        self.changed = self.changed or bool(self._open_calls or self._open_thoughts)
        self._open_calls.clear()
        self._thoughts += self._open_thoughts.take()


def _may_have_facts(events: bytes) -> bool:
    for marker in _FACT_MARKERS:
        if marker in events:
            return True
    return has_usage(events)


def has_usage(events: bytes) -> bool:
    """Whether an event has a `usage` that is not null."""
    return b'"usage"' in events and events.count(b'"usage"') > sum(map(events.count, _NULL_USAGE))


class UsageFilter(StreamTap):
    """Outputs whole events, except the usage chunk that the client did not ask for."""

    exact = True

    def feed(self, piece: bytes) -> bytes:
        events = self._splitter.feed(piece)
        if not events:
            return events
        self._read(events)
        if b'"usage"' not in events:
            return events
        return b"".join([event for event in sse.split(events) if self._passes(event)])

    def end(self) -> bytes:
        rest = self._splitter.flush()
        self._read(rest)
        self._reader.end()
        return rest if self._passes(rest) else b""

    def _passes(self, event: bytes) -> bool:
        if b'"usage"' not in event or any(null in event for null in _NULL_USAGE):
            return True
        chunk = body.loads(sse.parse(event).data)
        is_usage_chunk = bool(body.get_object(chunk, "usage")) and chunk.get("choices") == []
        self.exact = self.exact and not is_usage_chunk
        return not is_usage_chunk
