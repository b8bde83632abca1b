"""OpenAI Chat Completions: joins the responses of a request into one, while the bridge runs tools in between.

The client sees the first response's id throughout, nothing of an offered tool, only the last response's end,
and one usage, the sum.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .. import sse
from ..model import Offer
from . import body
from .chat_calls import VisibleCalls
from .chat_message import AssistantMessage, member_elements
from .chat_reader import ChatReader, has_usage
from .failures import failure_in
from .offering import NULL, with_elements
from .splice import CallResults, sum_counts
from .tool_results import as_text

_DONE = b"[DONE]"
_CUT_OFF_REASONS = ("length", "content_filter", "error")
_NULL_REASON = (b'"finish_reason":null', b'"finish_reason": null')
_EMPTY_VALUES = (NULL, b'""', b"[]", b"{}")


class ChatSplicer:
    """Events are buffered until the name of a call is known, and from the response's end on until it is known
    what follows. `_buffered` has each such event, its decoded data, and the numbers of the calls of which it
    has pieces."""

    def __init__(self, offer: Offer, includes_usage: bool) -> None:
        self._offer = offer
        self._request: Mapping[str, bytes] = {}  # its members, once a request follows
        self._offered_ids = frozenset(tool.id for tool in offer.tools)
        self._includes_usage = includes_usage
        self._first_id = b""
        self._choices_with_role: set[int] = set()
        self._earlier_message = AssistantMessage()
        self._earlier_usage: dict[str, Any] = {}
        self._rounds_done = 0
        self._start_response()

    def _start_response(self) -> None:
        self._calls = VisibleCalls(self._offered_ids)
        self._id = self._new_id = b""
        self._usage: Mapping[str, Any] = {}
        self._is_finishing = self._is_done = self._is_cut_off = False
        self._buffered: list[tuple[bytes, Any, list[int]]] = []
        self._received: list[bytes] = []
        self._choices: list[bytes] = []

    @property
    def awaits_tools(self) -> bool:
        """The response has ended, and all its calls are calls of offered tools."""
        return self._is_done and not self._is_cut_off and self._calls.has_only_hidden_calls

    def new_reader(self) -> ChatReader:
        return ChatReader()

    def filter_events(self, events: bytes) -> bytes:
        self._received.append(events)
        return self._filter_text(events) or b"".join(
            [self._filter_event(event) for event in sse.split(events)]
        )

    def flush(self) -> bytes:
        self._is_done = self._is_done or self._is_finishing
        return self._filter_buffered()

    def _filter_text(self, events: bytes) -> bytes:
        """Returns what the client sees of events that are plain text; b"" if they must be decoded."""
        if not self._id or self._buffered:
            return b""
        count = events.count(b"data: {")
        if 2 * count != events.count(b"\n") or not _is_text(events, count):
            return b""
        if not self._rounds_done:
            return events
        if events.count(self._id) != count or b'"role"' in events or has_usage(events):
            return b""
        return events.replace(self._id, self._new_id)

    def _filter_event(self, event: bytes) -> bytes:
        text = self._filter_text(event)
        if text:
            return text
        data = sse.parse(event).data
        self._is_done = self._is_done or data.strip() == _DONE
        chunk = body.loads(data) if data else None
        self._set_id(event, body.get_string(chunk, "id"))
        self._buffered.append((event, chunk, self._update(chunk, "delta")))
        return b"" if self._must_wait else self._filter_buffered()

    @property
    def _must_wait(self) -> bool:
        """Some upstreams split one response over several choices: the end of one is not the end of all."""
        is_undecided = self._calls.unnamed or (self._is_finishing and not self._calls.has_client_calls)
        return bool(is_undecided) and not self._is_done and not self._is_cut_off

    def _set_id(self, event: bytes, id: str) -> None:
        """Stores a response's id as it is written in the event, and its replacement."""
        if self._id or not id:
            return
        raw = body.dumps(id)
        self._first_id = self._first_id or raw
        match = re.search(rb'"id"\s*:\s*' + re.escape(raw), event)
        self._id = match.group() if match else raw
        self._new_id = self._id.removesuffix(raw) + self._first_id

    def _update(self, value: Any, member: str) -> list[int]:
        """Updates the state by a chunk or a whole response.

        Returns the numbers of the calls of which it has pieces.
        """
        choices, usage = body.get_array(value, "choices"), body.get_object(value, "usage")
        self._usage = usage or self._usage
        self._is_cut_off = self._is_cut_off or bool(failure_in(value))
        numbers = [number for choice in choices for number in self._update_by_choice(choice, member)]
        is_usage_chunk = usage and not choices
        self._is_finishing = self._is_finishing or bool(is_usage_chunk and self._calls.has_hidden_calls)
        return numbers

    def _update_by_choice(self, choice: Any, member: str) -> list[int]:
        reason, message = body.get_string(choice, "finish_reason"), body.get_object(choice, member)
        self._is_finishing = self._is_finishing or bool(reason)
        self._is_cut_off = self._is_cut_off or reason in _CUT_OFF_REASONS
        has_legacy_call = bool(body.get_object(message, "function_call"))
        self._calls.has_client_calls = self._calls.has_client_calls or has_legacy_call
        index, pieces = body.get_count(choice, "index"), body.get_array(message, "tool_calls")
        return [self._calls.call_number(index, position, piece) for position, piece in enumerate(pieces)]

    def _filter_buffered(self) -> bytes:
        buffered, self._buffered = self._buffered, []
        return b"".join([self._filter_chunk(*entry) for entry in buffered])

    def _filter_chunk(self, event: bytes, chunk: Any, numbers: list[int]) -> bytes:
        choices = body.get_array(chunk, "choices")
        if chunk is None and _DONE in event:
            return b"" if self.awaits_tools else event
        is_usage_chunk = not choices and body.get_object(chunk, "usage")
        if is_usage_chunk and (self.awaits_tools or not self._includes_usage):
            return b""
        if self._rounds_done or self.awaits_tools or self._calls.has_hidden_calls:
            return self._edit(event, numbers)
        with_role = [
            choice for choice in choices if body.get_string(body.get_object(choice, "delta"), "role")
        ]
        self._choices_with_role.update(body.get_count(choice, "index") for choice in with_role)
        return event

    def _edit(self, event: bytes, numbers: list[int]) -> bytes:
        name, data = sse.parse(event)
        chunk = body.object_members(data)
        choices = member_elements(chunk, "choices")
        visible, has_content = self._filter_choices(choices, "delta", numbers)
        usage = chunk.get("usage", NULL)
        shows_usage = usage != NULL and not self.awaits_tools and not any(map(self._calls.is_hidden, numbers))
        if choices and not has_content and not shows_usage:
            return b""
        changes = {} if visible == choices else {"choices": b"[" + b",".join(visible) + b"]"}
        if usage != NULL and (self._rounds_done or self.awaits_tools):
            changes["usage"] = NULL if self.awaits_tools else self._total_usage()
        if not changes and self._id and self._id in event:
            return event.replace(self._id, self._new_id, 1)
        if self._rounds_done and "id" in chunk:
            changes["id"] = self._first_id
        return sse.encode(name.decode(), body.join_members({**chunk, **changes})) if changes else event

    def _filter_choices(
        self, choices: list[bytes], member: str, numbers: list[int]
    ) -> tuple[list[bytes], bool]:
        """Returns the choices as the client sees them, and whether they have any content for it."""
        remaining = iter(numbers)
        visible = [self._filter_choice(raw, member, remaining) for raw in choices]
        return [raw for raw, _ in visible], any(has_content for _, has_content in visible)

    def _filter_choice(self, raw: bytes, member: str, numbers: Iterator[int]) -> tuple[bytes, bool]:
        choice = body.object_members(raw)
        message, index = body.object_members(choice.get(member, NULL)), body.index_of(choice)
        visible = self._without_hidden_calls(message, member, numbers)
        if self._rounds_done and member == "delta" and index in self._choices_with_role:
            visible.pop("role", b"")
        ends = choice.get("finish_reason", NULL) != NULL
        is_first_role = "role" in visible and not self._choices_with_role
        has_values = any(value not in _EMPTY_VALUES for name, value in visible.items() if name != "role")
        has_content = has_values or is_first_role or (ends and not self.awaits_tools)
        if has_content and "role" in visible:
            self._choices_with_role.add(index)
        changes = {} if visible == message else {member: body.join_members(visible)}
        if ends and self.awaits_tools:
            changes["finish_reason"] = NULL
        return body.join_members({**choice, **changes}) if changes else raw, has_content

    def _without_hidden_calls(
        self, message: Mapping[str, bytes], member: str, numbers: Iterator[int]
    ) -> dict[str, bytes]:
        """Removes calls of offered tools from a message or delta. In a stream the other calls get the indexes
        that the client sees."""
        calls = list(zip(member_elements(message, "tool_calls"), numbers, strict=False))
        if not calls or not self._calls.has_hidden_calls:
            return dict(message)
        own = [(number, piece) for piece, number in calls if not self._calls.is_hidden(number)]
        pieces = [self._calls.with_client_index(*call) if member == "delta" else call[1] for call in own]
        others = {name: raw for name, raw in message.items() if name != "tool_calls"}
        return {**message, "tool_calls": b"[" + b",".join(pieces) + b"]"} if pieces else others

    def _total_usage(self) -> bytes:
        return body.dumps(sum_counts(self._earlier_usage, self._usage))

    def filter_body(self, data: bytes) -> bytes:
        response = body.object_members(data)
        numbers = self._update(body.loads(data), "message")
        self._is_done, self._choices = True, member_elements(response, "choices")
        self._first_id = self._first_id or response.get("id", b"")
        if self.awaits_tools:
            self._earlier_message.add_choices(self._choices, "message")
            return b""
        if not response or not (self._rounds_done or self._calls.has_hidden_calls):
            return data
        choices, _ = self._filter_choices(self._choices, "message", numbers)
        joined = b",".join([*map(self._with_earlier_texts, choices[:1]), *choices[1:]])
        changes = {"choices": b"[" + joined + b"]"}
        if self._rounds_done:
            changes.update(id=self._first_id, usage=self._total_usage())
        return body.join_members({**response, **changes})

    def _with_earlier_texts(self, raw: bytes) -> bytes:
        """Prepends to a choice what the model said before tools were called."""
        choice = body.object_members(raw)
        message = self._earlier_message.before(body.object_members(choice.get("message", NULL)))
        return body.join_members({**choice, "message": body.join_members(message)})

    def follow_up(self, results: CallResults) -> bytes:
        message = AssistantMessage()
        message.add_events(self._received)
        message.add_choices(self._choices, "message")
        outputs = [
            {"role": "tool", "tool_call_id": call.id, "content": as_text(result)} for call, result in results
        ]
        new = b",".join([message.to_json(), *map(body.dumps, outputs)])
        request = self._request or body.split_members(self._offer.body)
        messages = with_elements(request["messages"], after=new)
        self._request = {**request, **self._offer.follow_up_members, "messages": messages}
        self._earlier_usage = sum_counts(self._earlier_usage, self._usage)
        self._rounds_done += 1
        self._start_response()
        return body.join_members(self._request)


def _is_text(events: bytes, count: int) -> bool:
    """Whether each of `count` events has text, no call, and no end of the response.

    The searched words cannot match inside a text: its quotes would be escaped.
    """
    if b"_call" in events or b'"finish_reason":"' in events:
        return False
    if events.count(_NULL_REASON[0]) == count:
        return True
    ends = events.count(b'"finish_reason"') > sum(map(events.count, _NULL_REASON))
    return not ends and events.count(b'"delta"') >= count and b'"error"' not in events
