"""Anthropic Messages: joins the responses of a request into one, while the bridge runs tools in between.

The client sees one `message_start`, text and thinking of each round as they arrive, blocks with indexes
without gaps, nothing of an offered tool, and one end whose usage is the sum.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .. import sse
from ..model import Offer, ToolCall, ToolResult
from . import body, messages_blocks, tool_results
from .failures import failure_in
from .messages_reader import DELTA_HEAD, MessagesReader
from .offering import NULL, with_elements
from .splice import CallResults, sum_counts

_HIDDEN = -1
_WHOLE_TURN = ("tool_use", "end_turn")  # some upstreams say the latter of calls, too
_BLOCK_EVENT_HEADS = (DELTA_HEAD, b"event: content_block_stop\n")
_INDEX = re.compile(rb'(data: ?\{"type": ?"[a-z_]+", ?"index": ?)(\d+)')


class MessagesSplicer:
    def __init__(self, offer: Offer) -> None:
        self._offer = offer
        self._request: Mapping[str, bytes] = {}  # its members, once a request follows
        self._offered_ids = frozenset(tool.id for tool in offer.tools)
        self._next_index = 0
        self._first_message: Mapping[str, bytes] = {}
        self._visible_blocks: list[bytes] = []
        self._earlier_usage: dict[str, Any] = {}
        self._rounds_done = 0
        self._reader = MessagesReader()
        self._start_response()

    def _start_response(self) -> None:
        self._indexes: dict[int, int] = {}
        self._must_renumber = self._rounds_done > 0
        self._has_offered_call = self._has_client_call = False
        self._stop_reason = ""
        self._usage: dict[str, Any] = {}
        self._received: list[bytes] = []
        self._blocks: list[bytes] = []

    @property
    def awaits_tools(self) -> bool:
        """The model stopped, and all its calls are calls of offered tools."""
        return self._has_offered_call and not self._has_client_call and self._stop_reason in _WHOLE_TURN

    def new_reader(self) -> MessagesReader:
        self._reader = MessagesReader()
        return self._reader

    def filter_events(self, events: bytes) -> bytes:
        self._received.append(events)
        before, text, after = self._reader.parts
        out = self._filter_each(before) if before else b""
        out += self._renumber_text(text) if text and self._must_renumber else text
        return out + self._filter_each(after) if after else out

    def _filter_each(self, events: bytes) -> bytes:
        return b"".join([self._filter_event(event) for event in sse.split(events)])

    def _renumber_text(self, events: bytes) -> bytes:
        """Text is never buffered. Deltas have the index at the same place; if not, each is decoded."""
        renumbered, count = _INDEX.subn(lambda match: match[1] + self._client_index(int(match[2])), events)
        return renumbered if count == events.count(DELTA_HEAD) else self._filter_each(events)

    def _client_index(self, index: int) -> bytes:
        return b"%d" % self._indexes.get(index, index)

    def flush(self) -> bytes:
        return b""

    def _filter_event(self, event: bytes) -> bytes:
        if not self._must_renumber and event.startswith(_BLOCK_EVENT_HEADS):
            return event
        data = sse.parse(event).data
        value = body.loads(data) if data else None
        handler = _HANDLERS.get("error" if failure_in(value) else body.get_string(value, "type"))
        return handler(self, event, value) if handler and isinstance(value, dict) else event

    def _start_message(self, event: bytes, value: Mapping[str, Any]) -> bytes:
        self._usage = dict(body.get_object(body.get_object(value, "message"), "usage"))
        return b"" if self._rounds_done else event

    def _start_block(self, event: bytes, value: Mapping[str, Any]) -> bytes:
        self._assign_index(body.get_count(value, "index"), body.get_object(value, "content_block"))
        return self._renumber_event(event, value)

    def _assign_index(self, index: int, block: Mapping[str, Any]) -> bool:
        """Sets the index under which the client sees a block. Returns whether it sees the block."""
        is_call = body.get_string(block, "type") == "tool_use"
        if is_call and body.get_string(block, "name") in self._offered_ids:
            self._indexes[index], self._has_offered_call = _HIDDEN, True
        else:
            self._indexes[index], self._has_client_call = self._next_index, self._has_client_call or is_call
            self._next_index += 1
        self._must_renumber = self._must_renumber or self._indexes[index] != index
        return self._indexes[index] != _HIDDEN

    def _renumber_event(self, event: bytes, value: Mapping[str, Any]) -> bytes:
        upstream_index = body.get_count(value, "index")
        index = self._indexes.get(upstream_index, upstream_index)
        if index == _HIDDEN:
            return b""
        if index == upstream_index:
            return event
        renumbered, count = _INDEX.subn(rb"\g<1>%d" % index, event, count=1)
        return renumbered if count else _set_member(event, "index", b"%d" % index)

    def _update_message(self, event: bytes, value: Mapping[str, Any]) -> bytes:
        usage = body.get_object(value, "usage")
        self._usage.update({key: usage[key] for key in usage if usage[key] is not None})
        reason = body.get_string(body.get_object(value, "delta"), "stop_reason")
        self._stop_reason = reason or self._stop_reason
        if self.awaits_tools:
            return b""
        if not self._rounds_done:
            return event
        return _set_member(event, "usage", body.dumps(sum_counts(self._earlier_usage, self._usage)))

    def _stop_message(self, event: bytes, value: Mapping[str, Any]) -> bytes:
        return b"" if self.awaits_tools else event

    def _fail(self, event: bytes, value: Mapping[str, Any]) -> bytes:
        self._has_offered_call = False
        return event

    def filter_body(self, data: bytes) -> bytes:
        message = body.split_members(data)
        self._usage = dict(body.get_object(body.loads(data), "usage"))
        self._stop_reason = body.to_text(body.loads(message.get("stop_reason", NULL)))
        self._blocks = messages_blocks.blocks_of_content(message.get("content", b"[]"))
        visible = [
            block
            for index, block in enumerate(self._blocks)
            if self._assign_index(index, body.loads(block) or {})
        ]
        self._first_message = self._first_message or message
        self._visible_blocks += visible
        if self.awaits_tools:
            return b""
        if not self._rounds_done and len(visible) == len(self._blocks):
            return data
        return body.join_members({**message, **self._first_members(), **self._merged_members()})

    def _first_members(self) -> dict[str, bytes]:
        """The members that the client sees as they were in the first response."""
        return {name: self._first_message[name] for name in ("id", "model") if name in self._first_message}

    def _merged_members(self) -> dict[str, bytes]:
        """The members that combine all responses."""
        usage = body.dumps(sum_counts(self._earlier_usage, self._usage))
        return {"content": b"[" + b",".join(self._visible_blocks) + b"]", "usage": usage}

    def follow_up(self, results: CallResults) -> bytes:
        blocks = self._blocks or messages_blocks.blocks_of_stream(self._received)
        result_blocks = [_result_block(call, result) for call, result in results]
        content = b"[" + b",".join(blocks) + b"]"
        assistant = body.join_members({"role": b'"assistant"', "content": content})
        user = body.dumps({"role": "user", "content": result_blocks})
        request = self._request or body.split_members(self._offer.body)
        messages = with_elements(request["messages"], after=assistant + b"," + user)
        self._request = {**request, **self._offer.follow_up_members, "messages": messages}
        self._earlier_usage = sum_counts(self._earlier_usage, self._usage)
        self._rounds_done += 1
        self._start_response()
        return body.join_members(self._request)


_HANDLERS = {
    "message_start": MessagesSplicer._start_message,
    "content_block_start": MessagesSplicer._start_block,
    "content_block_delta": MessagesSplicer._renumber_event,
    "content_block_stop": MessagesSplicer._renumber_event,
    "message_delta": MessagesSplicer._update_message,
    "message_stop": MessagesSplicer._stop_message,
    "error": MessagesSplicer._fail,
}


def _set_member(event: bytes, name: str, value: bytes) -> bytes:
    event_name, data = sse.parse(event)
    return sse.encode(event_name.decode(), body.set_field(data, name, value))


def _result_block(call: ToolCall, result: ToolResult) -> dict[str, Any]:
    content = [_content_block(part) for part in tool_results.content_parts(result)]
    error_mark = {"is_error": True} if result.is_error else {}
    return {"type": "tool_result", "tool_use_id": call.id, "content": content, **error_mark}


def _content_block(part: tool_results.ContentPart) -> dict[str, Any]:
    if not part.image:
        return {"type": "text", "text": part.text}
    source = {"type": "base64", "media_type": part.media_type, "data": part.image}
    return {"type": "image", "source": source}
