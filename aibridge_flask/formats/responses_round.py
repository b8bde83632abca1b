"""OpenAI Responses: one answer of several, as the client sees it.

It is held back until an item for the client begins, or until it ends: an answer of nothing but thoughts
and offered calls is never shown. What is shown goes on where the answers before have ended.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .. import sse
from ..model import EMPTY
from . import body
from .offering import NULL
from .responses_items import VisibleItems
from .responses_reader import ITEM_DONE, TERMINAL_EVENTS, UNREAD_EVENTS, place
from .splice import sum_counts

_HELD = -1
_UNKNOWN = -1
_TEXT_HEAD = b"event: response.output_text.delta\n"
_INDEX = b"output_index"
_NUMBERS = re.compile(rb'"(output_index|sequence_number)": ?(\d+)')
_TOLD_OTHERWISE = (b'"function_call"', b'"encrypted_content"')
_STARTS = ("response.created", "response.queued", "response.in_progress")


@dataclass(frozen=True, slots=True)
class ShownSoFar:
    """What the client has of the answers before: the first one's id, items, the next index and sequence
    number; and what all of them used."""

    id: bytes = b""
    items: tuple[bytes, ...] = ()
    index: int = 0
    sequence: int = _UNKNOWN
    usage: Mapping[str, Any] = field(default_factory=lambda: EMPTY)


class Round:
    """`items` are the answer's, as they stand, once it has ended."""

    def __init__(self, view: VisibleItems, before: ShownSoFar) -> None:
        self.items: list[bytes] = []
        self.awaits_tools = False
        self._view, self._before = view, before
        self._index, self._sequence = before.index, before.sequence
        self._moved = before.index > 0
        self._open = self._failed = False
        self._id = b""
        self._places: dict[int | str, int] = {}
        self._done: dict[int | str, bytes] = {}
        self._held: list[bytes] = []
        self._usage: Mapping[str, Any] = EMPTY

    def filter_events(self, run: bytes) -> bytes:
        start, end = _span(run)
        if end - start == len(run) and self._as_it_is:
            return run
        before, text = self._events(run[:start]), self._text(run[start:end])
        self._held += [*before, *text, *self._events(run[end:])]
        return self.flush() if self._open else b""

    def flush(self) -> bytes:
        held, self._held = b"".join(self._held), []
        return held if self._open or not self.awaits_tools else b""

    def filter_body(self, data: bytes) -> bytes:
        answer = body.members(data)
        self._end(body.loads(data), answer, "response.completed")
        if self.awaits_tools:
            self._open = any(self._view.is_clients(body.loads(raw)) for raw in self.items)
            return b""
        changes = self._changes(answer)
        return body.join_members({**answer, **changes}) if changes else data

    def shown(self) -> ShownSoFar:
        """What the client has after it."""
        before, usage = self._before, sum_counts(self._before.usage, self._usage)
        if not self._open:
            return replace(before, usage=usage)
        items = (*before.items, *self._view.shown(self.items))
        return ShownSoFar(before.id or self._id, items, self._index, self._sequence, usage)

    @property
    def _as_it_is(self) -> bool:
        return self._open and not self._moved

    def _text(self, run: bytes) -> list[bytes]:
        """Events of text alone; no text can hold these names with their quotes."""
        if self._as_it_is or not run:
            return [run]
        numbers = _NUMBERS.findall(run)
        places = {self._places.get(int(number), _HELD) for name, number in numbers if name == _INDEX}
        if len(numbers) != 2 * run.count(_TEXT_HEAD) or _HELD in places or self._sequence == _UNKNOWN:
            return self._events(run)
        return [_NUMBERS.sub(self._renumbered, run)]

    def _renumbered(self, found: re.Match[bytes]) -> bytes:
        if found[1] == _INDEX:
            return b'"%s":%d' % (_INDEX, self._places[int(found[2])])
        self._sequence += 1
        return b'"%s":%d' % (found[1], self._sequence - 1)

    def _events(self, run: bytes) -> list[bytes]:
        return [self._event(event) for event in sse.split(run)] if run else []

    def _event(self, event: bytes) -> bytes:
        if not self._moved and event.startswith(UNREAD_EVENTS):
            return event
        data = sse.parse(event).data
        found = body.loads(data) if data else None
        if self.awaits_tools or not isinstance(found, dict):
            return b"" if self.awaits_tools else event
        kind = body.get_string(found, "type")
        if kind in TERMINAL_EVENTS:
            return self._last(event, data, found)
        self._failed = self._failed or kind == "error"
        self._open = self._open or self._failed
        hidden = self._before.index > 0 and kind in _STARTS
        return self._hide(found) if hidden else self._show(event, data, found)

    def _show(self, event: bytes, data: bytes, found: Mapping[str, Any]) -> bytes:
        """An event that is no last one, with its numbers, if the client is to see it."""
        known, item = place(found), body.get_object(found, "item")
        if known == "":
            return self._numbered(event, found, {})
        where = self._place(known, item)
        if item:
            is_done = body.get_string(found, "type") == ITEM_DONE
            self._done[known] = body.members(data)["item"] if is_done else b""
        if where == _HELD:
            return self._hide(found)
        moved = isinstance(known, int) and known != where
        changes = {"output_index": b"%d" % where} if moved else {}
        if self._view.is_too_much(item):
            changes["item"] = self._view.as_shown(body.members(data)["item"], item)
        return self._numbered(event, found, changes)

    def _place(self, known: int | str, item: Mapping[str, Any]) -> int:
        if known not in self._places:
            offered = self._view.is_offered(item)
            self._places[known] = _HELD if offered else self._index
            self._index += not offered
            self._open = self._open or self._view.is_clients(item)
        return self._places[known]

    def _hide(self, found: Mapping[str, Any]) -> bytes:
        self._moved = True
        self._number(found)
        return b""

    def _number(self, found: Mapping[str, Any]) -> bool:
        """Whether an event has a number; the first one that counts is known from it."""
        number = found.get("sequence_number")
        if isinstance(number, int) and self._sequence == _UNKNOWN:
            self._sequence = number
        return isinstance(number, int)

    def _numbered(self, event: bytes, found: Mapping[str, Any], changes: dict[str, bytes]) -> bytes:
        if self._moved and self._number(found):
            changes["sequence_number"] = b"%d" % self._sequence
            self._sequence += 1
        if not changes:
            return event
        name, data = sse.parse(event)
        return sse.encode(name.decode(), body.join_members({**body.members(data), **changes}))

    def _last(self, event: bytes, data: bytes, found: Mapping[str, Any]) -> bytes:
        if not self._moved and not self._before.usage and not any(word in data for word in _TOLD_OTHERWISE):
            self._open = True
            return event
        answer = body.members(body.members(data).get("response", b"{}"))
        self._end(body.get_object(found, "response"), answer, body.get_string(found, "type"))
        if self.awaits_tools:
            return self._hide(found)
        self._open = True
        changes = self._changes(answer)
        whole = {"response": body.join_members({**answer, **changes})} if changes else {}
        return self._numbered(event, found, whole)

    def _end(self, found: Any, answer: Mapping[str, bytes], kind: str) -> None:
        done = list(self._done.values())
        self.items = done if done and all(done) else body.elements(answer.get("output", NULL))
        self._usage, self._id = body.get_object(found, "usage"), answer.get("id", b"")
        well = kind == TERMINAL_EVENTS[0] and body.get_string(found, "status") in ("completed", "")
        self.awaits_tools = well and not self._failed and self._view.is_ours(self.items)

    def _changes(self, answer: Mapping[str, bytes]) -> dict[str, bytes]:
        """What is to be told otherwise of the last answer."""
        told = body.elements(answer.get("output", NULL)) or self.items
        shown, changes = self._view.shown(told), {}
        if self._before.items or shown != told:
            changes["output"] = b"[" + b",".join([*self._before.items, *shown]) + b"]"
        if self._before.id and self._view.unlinked:  # one that is, goes on from the last
            changes["id"] = self._before.id
        if self._before.usage:
            changes["usage"] = body.dumps(sum_counts(self._before.usage, self._usage))
        return changes


def _span(run: bytes) -> tuple[int, int]:
    """Where the events of text stand, if they stand together."""
    start = run.find(_TEXT_HEAD)
    if start < 0:
        return 0, 0
    if not start and _is_text(run):
        return 0, len(run)
    end = run.find(b"\n\n", run.rfind(_TEXT_HEAD)) + 2
    return (start, end) if end > start + 1 and _is_text(run[start:end]) else (0, 0)


def _is_text(run: bytes) -> bool:
    return run.count(_TEXT_HEAD) == run.count(b"\n\n") and b"\r" not in run
