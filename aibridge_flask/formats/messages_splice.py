"""Anthropic Messages: one message of all that the model said while the bridge ran tools for it.

The client sees one `message_start`, text and thinking of each round as it comes, blocks numbered
without gaps, nothing of an offered tool, and one end whose usage is the sum.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .. import sse
from ..model import Offer, ToolCall, ToolResult
from . import body, messages_blocks, tool_results
from .messages_reader import DELTA_HEAD, MessagesReader
from .offering import NULL, with_elements
from .splice import Results, sum_counts

_HELD = -1
_IN_BLOCK = (DELTA_HEAD, b"event: content_block_stop\n")
_INDEX = re.compile(rb'(data: ?\{"type": ?"[a-z_]+", ?"index": ?)(\d+)')


class MessagesSplicer:
    def __init__(self, offer: Offer) -> None:
        self._request, self._later = body.members(offer.body), offer.follow_up_members
        self._ids = frozenset(tool.id for tool in offer.tools)
        self._next = 0
        self._start: Mapping[str, bytes] = {}
        self._shown: list[bytes] = []
        self._spent: dict[str, Any] = {}
        self._rounds = 0
        self._reading = MessagesReader()
        self._begin()

    def _begin(self) -> None:
        self._places: dict[int, int] = {}
        self._moved = self._rounds > 0
        self._picked = self._others = False
        self._stop = ""
        self._usage: dict[str, Any] = {}
        self._kept: list[bytes] = []
        self._content: list[bytes] = []

    @property
    def awaits_tools(self) -> bool:
        """The model stopped for offered tools alone."""
        return self._picked and not self._others and self._stop == "tool_use"

    def new_reader(self) -> MessagesReader:
        self._reading = MessagesReader()
        return self._reading

    def filter_events(self, run: bytes) -> bytes:
        self._kept.append(run)
        before, text, after = self._reading.parts
        out = self._events(before) if before else b""
        out += self._text(text) if text and self._moved else text
        return out + self._events(after) if after else out

    def _events(self, run: bytes) -> bytes:
        return b"".join([self._event(event) for event in sse.split(run)])

    def _text(self, run: bytes) -> bytes:
        """Text is never held back, and all deltas of a run have their numbers at the same place."""
        numbered, count = _INDEX.subn(lambda found: found[1] + self._number(int(found[2])), run)
        return numbered if count == run.count(DELTA_HEAD) else self._events(run)

    def _number(self, index: int) -> bytes:
        return b"%d" % self._places.get(index, index)

    def flush(self) -> bytes:
        return b""

    def _event(self, event: bytes) -> bytes:
        if not self._moved and event.startswith(_IN_BLOCK):
            return event
        data = sse.parse(event).data
        found = body.loads(data) if data else None
        handler = _HANDLERS.get(body.get_string(found, "type"))
        return handler(self, event, found) if handler and isinstance(found, dict) else event

    def _start_message(self, event: bytes, found: Mapping[str, Any]) -> bytes:
        self._usage = dict(body.get_object(body.get_object(found, "message"), "usage"))
        return b"" if self._rounds else event

    def _start_block(self, event: bytes, found: Mapping[str, Any]) -> bytes:
        self._place(body.get_count(found, "index"), body.get_object(found, "content_block"))
        return self._in_block(event, found)

    def _place(self, index: int, block: Mapping[str, Any]) -> bool:
        """Gives a block its number; whether the client sees it."""
        called = body.get_string(block, "type") == "tool_use"
        if called and body.get_string(block, "name") in self._ids:
            self._places[index], self._picked = _HELD, True
        else:
            self._places[index], self._others = self._next, self._others or called
            self._next += 1
        self._moved = self._moved or self._places[index] != index
        return self._places[index] != _HELD

    def _in_block(self, event: bytes, found: Mapping[str, Any]) -> bytes:
        index = body.get_count(found, "index")
        place = self._places.get(index, index)
        if place == _HELD:
            return b""
        if place == index:
            return event
        numbered, count = _INDEX.subn(rb"\g<1>%d" % place, event, count=1)
        return numbered if count else _changed(event, "index", b"%d" % place)

    def _delta_message(self, event: bytes, found: Mapping[str, Any]) -> bytes:
        told = body.get_object(found, "usage")
        self._usage.update({key: told[key] for key in told if told[key] is not None})
        self._stop = body.get_string(body.get_object(found, "delta"), "stop_reason") or self._stop
        if self.awaits_tools:
            return b""
        if not self._rounds:
            return event
        return _changed(event, "usage", body.dumps(sum_counts(self._spent, self._usage)))

    def _stop_message(self, event: bytes, found: Mapping[str, Any]) -> bytes:
        return b"" if self.awaits_tools else event

    def _fail(self, event: bytes, found: Mapping[str, Any]) -> bytes:
        self._picked = False
        return event

    def filter_body(self, data: bytes) -> bytes:
        answer = body.members(data)
        self._usage = dict(body.get_object(body.loads(data), "usage"))
        self._stop = body.to_text(body.loads(answer.get("stop_reason", NULL)))
        self._content = messages_blocks.blocks_of_content(answer.get("content", b"[]"))
        shown = [
            block for index, block in enumerate(self._content) if self._place(index, body.loads(block) or {})
        ]
        self._start = self._start or answer
        self._shown += shown
        if self.awaits_tools:
            return b""
        if not self._rounds and len(shown) == len(self._content):
            return data
        return body.join_members({**answer, **self._as_first(), **self._sums()})

    def _as_first(self) -> dict[str, bytes]:
        return {name: self._start[name] for name in ("id", "model") if name in self._start}

    def _sums(self) -> dict[str, bytes]:
        usage = body.dumps(sum_counts(self._spent, self._usage))
        return {"content": b"[" + b",".join(self._shown) + b"]", "usage": usage}

    def follow_up(self, results: Results) -> bytes:
        said = self._content or messages_blocks.blocks_of_stream(self._kept)
        given = [_result(call, result) for call, result in results]
        turn = body.join_members({"role": b'"assistant"', "content": b"[" + b",".join(said) + b"]"})
        back = body.dumps({"role": "user", "content": given})
        messages = with_elements(self._request["messages"], after=turn + b"," + back)
        self._request = {**self._request, **self._later, "messages": messages}
        self._spent = sum_counts(self._spent, self._usage)
        self._rounds += 1
        self._begin()
        return body.join_members(self._request)


_HANDLERS = {
    "message_start": MessagesSplicer._start_message,
    "content_block_start": MessagesSplicer._start_block,
    "content_block_delta": MessagesSplicer._in_block,
    "content_block_stop": MessagesSplicer._in_block,
    "message_delta": MessagesSplicer._delta_message,
    "message_stop": MessagesSplicer._stop_message,
    "error": MessagesSplicer._fail,
}


def _changed(event: bytes, name: str, value: bytes) -> bytes:
    told, data = sse.parse(event)
    return sse.encode(told.decode(), body.set_field(data, name, value))


def _result(call: ToolCall, result: ToolResult) -> dict[str, Any]:
    content = [_content(part) for part in tool_results.parts(result)]
    marked = {"is_error": True} if result.is_error else {}
    return {"type": "tool_result", "tool_use_id": call.id, "content": content, **marked}


def _content(part: tool_results.ContentPart) -> dict[str, Any]:
    if not part.picture:
        return {"type": "text", "text": part.text}
    source = {"type": "base64", "media_type": part.media_type, "data": part.picture}
    return {"type": "image", "source": source}
