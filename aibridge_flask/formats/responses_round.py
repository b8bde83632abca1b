"""OpenAI Responses: one of several upstream responses, as the client sees it.

It is buffered until an item for the client begins, or until it ends: a response of only reasoning and offered
calls is never shown. What is shown continues the indexes and sequence numbers of the earlier responses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .. import sse
from ..model import EMPTY
from . import body
from .failures import failure_in
from .offering import NULL
from .responses_items import VisibleItems
from .responses_reader import ITEM_DONE, TERMINAL_EVENTS, UNREAD_EVENTS, item_key
from .splice import sum_counts

_HIDDEN = -1
_UNKNOWN_SEQUENCE = -1
_TEXT_HEAD = b"event: response.output_text.delta\n"
_INDEX = b"output_index"
_NUMBERS = re.compile(rb'"(output_index|sequence_number)": ?(\d+)')
_EDIT_MARKERS = (b'"function_call"', b'"encrypted_content"')
_START_EVENTS = ("response.created", "response.queued", "response.in_progress")


@dataclass(frozen=True, slots=True)
class ShownSoFar:
    """What the client has of the earlier responses: the first one's id, their items, the next index and
    sequence number; and the usage of all of them, shown or not."""

    id: bytes = b""
    items: tuple[bytes, ...] = ()
    next_index: int = 0
    next_sequence: int = _UNKNOWN_SEQUENCE
    usage: Mapping[str, Any] = field(default_factory=lambda: EMPTY)


class Round:
    """Filters one upstream response. `items` is the JSON of its items, once it has ended."""

    def __init__(self, visible_items: VisibleItems, earlier: ShownSoFar) -> None:
        self.items: list[bytes] = []
        self.awaits_tools = False
        self._visible_items, self._earlier = visible_items, earlier
        self._next_index, self._next_sequence = earlier.next_index, earlier.next_sequence
        self._must_renumber = earlier.next_index > 0
        self._is_shown = self._has_error = False
        self._id = b""
        self._indexes: dict[int | str, int] = {}
        self._done_items: dict[int | str, bytes] = {}
        self._buffered: list[bytes] = []
        self._usage: Mapping[str, Any] = EMPTY

    def filter_events(self, events: bytes) -> bytes:
        start, end = _text_span(events)
        if end - start == len(events) and self._passes_unchanged:
            return events
        before, text = self._filter_each(events[:start]), self._filter_text(events[start:end])
        self._buffered += [*before, *text, *self._filter_each(events[end:])]
        return self.flush() if self._is_shown else b""

    def flush(self) -> bytes:
        buffered, self._buffered = b"".join(self._buffered), []
        return buffered if self._is_shown or not self.awaits_tools else b""

    def filter_body(self, data: bytes) -> bytes:
        response = body.split_members(data)
        self._finish(body.loads(data), response, "response.completed")
        if self.awaits_tools:
            self._is_shown = any(self._visible_items.is_for_client(body.loads(raw)) for raw in self.items)
            return b""
        changes = self._response_changes(response)
        return body.join_members({**response, **changes}) if changes else data

    def shown_so_far(self) -> ShownSoFar:
        """Returns what the client has after this response."""
        earlier, usage = self._earlier, sum_counts(self._earlier.usage, self._usage)
        if not self._is_shown:
            return replace(earlier, usage=usage)
        items = (*earlier.items, *self._visible_items.filter_items(self.items))
        return ShownSoFar(earlier.id or self._id, items, self._next_index, self._next_sequence, usage)

    @property
    def _passes_unchanged(self) -> bool:
        return self._is_shown and not self._must_renumber

    def _filter_text(self, events: bytes) -> list[bytes]:
        """Filters events that are all text. The names with their quotes cannot match inside a text."""
        if self._passes_unchanged or not events:
            return [events]
        numbers = _NUMBERS.findall(events)
        indexes = {self._indexes.get(int(number), _HIDDEN) for name, number in numbers if name == _INDEX}
        is_complete = len(numbers) == 2 * events.count(_TEXT_HEAD) and _HIDDEN not in indexes
        if not is_complete or self._next_sequence == _UNKNOWN_SEQUENCE:
            return self._filter_each(events)
        return [_NUMBERS.sub(self._renumber, events)]

    def _renumber(self, match: re.Match[bytes]) -> bytes:
        if match[1] == _INDEX:
            return b'"%s":%d' % (_INDEX, self._indexes[int(match[2])])
        self._next_sequence += 1
        return b'"%s":%d' % (match[1], self._next_sequence - 1)

    def _filter_each(self, events: bytes) -> list[bytes]:
        return [self._filter_event(event) for event in sse.split(events)] if events else []

    def _filter_event(self, event: bytes) -> bytes:
        if not self._must_renumber and event.startswith(UNREAD_EVENTS):
            return event
        data = sse.parse(event).data
        value = body.loads(data) if data else None
        if self.awaits_tools or not isinstance(value, dict):
            return b"" if self.awaits_tools else event
        kind = body.get_string(value, "type")
        if kind in TERMINAL_EVENTS:
            return self._filter_terminal_event(event, data, value)
        self._has_error = self._has_error or bool(failure_in(value))
        self._is_shown = self._is_shown or self._has_error
        hides = self._earlier.next_index > 0 and kind in _START_EVENTS
        return self._hide(value) if hides else self._filter_item_event(event, data, value)

    def _filter_item_event(self, event: bytes, data: bytes, value: Mapping[str, Any]) -> bytes:
        """Filters and renumbers an event that is not a terminal one."""
        key, item = item_key(value), body.get_object(value, "item")
        if key == "":
            return self._edit(event, value, {})
        index = self._index_of(key, item)
        if item:
            is_done = body.get_string(value, "type") == ITEM_DONE
            self._done_items[key] = body.split_members(data)["item"] if is_done else b""
        if index == _HIDDEN:
            return self._hide(value)
        moved = isinstance(key, int) and key != index
        changes = {"output_index": b"%d" % index} if moved else {}
        if self._visible_items.must_strip(item):
            changes["item"] = self._visible_items.strip(body.split_members(data)["item"], item)
        return self._edit(event, value, changes)

    def _index_of(self, key: int | str, item: Mapping[str, Any]) -> int:
        """Returns the index under which the client sees an item, `_HIDDEN` if it does not. Assigns it if the
        item is new."""
        if key not in self._indexes:
            is_hidden = self._visible_items.is_offered_call(item)
            self._indexes[key] = _HIDDEN if is_hidden else self._next_index
            self._next_index += not is_hidden
            self._is_shown = self._is_shown or self._visible_items.is_for_client(item)
        return self._indexes[key]

    def _hide(self, value: Mapping[str, Any]) -> bytes:
        self._must_renumber = True
        self._read_sequence_number(value)
        return b""

    def _read_sequence_number(self, value: Mapping[str, Any]) -> bool:
        """Returns whether an event has a sequence number. The first number is where renumbering starts."""
        number = value.get("sequence_number")
        if isinstance(number, int) and self._next_sequence == _UNKNOWN_SEQUENCE:
            self._next_sequence = number
        return isinstance(number, int)

    def _edit(self, event: bytes, value: Mapping[str, Any], changes: dict[str, bytes]) -> bytes:
        if self._must_renumber and self._read_sequence_number(value):
            changes["sequence_number"] = b"%d" % self._next_sequence
            self._next_sequence += 1
        if not changes:
            return event
        name, data = sse.parse(event)
        return sse.encode(name.decode(), body.join_members({**body.split_members(data), **changes}))

    def _filter_terminal_event(self, event: bytes, data: bytes, value: Mapping[str, Any]) -> bytes:
        needs_edit = any(word in data for word in _EDIT_MARKERS)
        if not self._must_renumber and not self._earlier.usage and not needs_edit:
            self._is_shown = True
            return event
        response = body.split_members(body.split_members(data).get("response", b"{}"))
        self._finish(body.get_object(value, "response"), response, body.get_string(value, "type"))
        if self.awaits_tools:
            return self._hide(value)
        self._is_shown = True
        changes = self._response_changes(response)
        edited = {"response": body.join_members({**response, **changes})} if changes else {}
        return self._edit(event, value, edited)

    def _finish(self, value: Any, response: Mapping[str, bytes], kind: str) -> None:
        """Reads a response that has ended. `value` is it decoded, `kind` the terminal event's type."""
        done, output = list(self._done_items.values()), body.array_elements(response.get("output", NULL))
        self.items = done if len(done) >= len(output) and all(done) else output
        self._usage, self._id = body.get_object(value, "usage"), response.get("id", b"")
        succeeded = kind == TERMINAL_EVENTS[0] and body.get_string(value, "status") in ("completed", "")
        self.awaits_tools = (
            succeeded and not self._has_error and self._visible_items.awaits_offered_tools(self.items)
        )

    def _response_changes(self, response: Mapping[str, bytes]) -> dict[str, bytes]:
        """Returns the members of the last response that the client must see differently."""
        output = body.array_elements(response.get("output", NULL)) or self.items
        visible, changes = self._visible_items.filter_items(output), {}
        if self._earlier.items or visible != output:
            changes["output"] = b"[" + b",".join([*self._earlier.items, *visible]) + b"]"
        if self._earlier.id and self._visible_items.is_unlinked:  # else the client continues from the last id
            changes["id"] = self._earlier.id
        if self._earlier.usage:
            changes["usage"] = body.dumps(sum_counts(self._earlier.usage, self._usage))
        return changes


def _text_span(events: bytes) -> tuple[int, int]:
    """Returns start and end of the text deltas if they are contiguous; (0, 0) if not."""
    start = events.find(_TEXT_HEAD)
    if start < 0:
        return 0, 0
    if not start and _is_text(events):
        return 0, len(events)
    end = events.find(b"\n\n", events.rfind(_TEXT_HEAD)) + 2
    return (start, end) if end > start + 1 and _is_text(events[start:end]) else (0, 0)


def _is_text(events: bytes) -> bool:
    return events.count(_TEXT_HEAD) == events.count(b"\n\n") and b"\r" not in events
