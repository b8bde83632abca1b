"""OpenAI Chat Completions: one answer of all that the model said while the bridge ran tools for it.

The client sees the first answer's id throughout, nothing of an offered tool, no end of an answer
that another one follows, and one usage, the sum.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .. import sse
from ..model import Offer
from . import body
from .chat_calls import VisibleCalls
from .chat_message import Message, elements, inside
from .chat_reader import ChatReader, has_usage
from .offering import NULL, with_elements
from .splice import Results, sum_counts
from .tool_results import as_text

_DONE = b"[DONE]"
_CUT = ("length", "content_filter", "error")
_NO_END = (b'"finish_reason":null', b'"finish_reason": null')
_NOTHING = (NULL, b'""', b"[]", b"{}")


class ChatSplicer:
    """`_held` are events that wait: for the name of a call, or, from the answer's end on, for what comes
    after it. With each stands what it holds, and the numbers of the calls that it has pieces of."""

    def __init__(self, offer: Offer, includes_usage: bool) -> None:
        self._request, self._later = body.members(offer.body), offer.follow_up_members
        self._ids = frozenset(tool.id for tool in offer.tools)
        self._asks_usage = includes_usage
        self._first_id = b""
        self._roles: set[int] = set()
        self._said = Message()
        self._spent: dict[str, Any] = {}
        self._rounds = 0
        self._begin()

    def _begin(self) -> None:
        self._calls = VisibleCalls(self._ids)
        self._id = self._new_id = b""
        self._usage: Mapping[str, Any] = {}
        self._ending = self._done = self._cut = False
        self._held: list[tuple[bytes, Any, list[int]]] = []
        self._kept: list[bytes] = []
        self._choices: list[bytes] = []

    @property
    def awaits_tools(self) -> bool:
        """The answer has ended with calls of offered tools alone."""
        return self._done and not self._cut and self._calls.only_offered

    def new_reader(self) -> ChatReader:
        return ChatReader()

    def filter_events(self, run: bytes) -> bytes:
        self._kept.append(run)
        return self._text(run) or b"".join([self._event(event) for event in sse.split(run)])

    def flush(self) -> bytes:
        self._done = self._done or self._ending
        return self._flush()

    def _text(self, run: bytes) -> bytes:
        """What the client sees of events that are plain text; nothing where they must be looked at."""
        if not self._id or self._held:
            return b""
        count = run.count(b"data: {")
        if 2 * count != run.count(b"\n") or not _is_text(run, count):
            return b""
        if not self._rounds:
            return run
        if run.count(self._id) != count or b'"role"' in run or has_usage(run):
            return b""
        return run.replace(self._id, self._new_id)

    def _event(self, event: bytes) -> bytes:
        text = self._text(event)
        if text:
            return text
        data = sse.parse(event).data
        self._done = self._done or data.strip() == _DONE
        found = body.loads(data) if data else None
        self._name(event, body.get_string(found, "id"))
        self._held.append((event, found, self._learn(found, "delta")))
        return b"" if self._waits else self._flush()

    @property
    def _waits(self) -> bool:
        """Some upstreams split one answer over several choices: the end of one is not that of all."""
        open = self._calls.nameless or (self._ending and not self._calls.others)
        return bool(open) and not self._done and not self._cut

    def _name(self, event: bytes, id: str) -> None:
        """Keeps an answer's id as the event has it, and what takes its place."""
        if self._id or not id:
            return
        raw = body.dumps(id)
        self._first_id = self._first_id or raw
        written = re.search(rb'"id"\s*:\s*' + re.escape(raw), event)
        self._id = written.group() if written else raw
        self._new_id = self._id.removesuffix(raw) + self._first_id

    def _learn(self, found: Any, member: str) -> list[int]:
        """The numbers of the calls that a chunk or a whole answer has pieces of."""
        choices, usage = body.get_array(found, "choices"), body.get_object(found, "usage")
        self._usage = usage or self._usage
        self._cut = self._cut or bool(body.get_object(found, "error"))
        numbers = [number for choice in choices for number in self._learn_choice(choice, member)]
        self._ending = self._ending or bool(usage and not choices and self._calls.hides)
        return numbers

    def _learn_choice(self, choice: Any, member: str) -> list[int]:
        reason, said = body.get_string(choice, "finish_reason"), body.get_object(choice, member)
        self._ending, self._cut = self._ending or bool(reason), self._cut or reason in _CUT
        self._calls.others = self._calls.others or bool(body.get_object(said, "function_call"))
        place, pieces = body.get_count(choice, "index"), body.get_array(said, "tool_calls")
        return [self._calls.number(place, position, piece) for position, piece in enumerate(pieces)]

    def _flush(self) -> bytes:
        held, self._held = self._held, []
        return b"".join([self._show(*one) for one in held])

    def _show(self, event: bytes, found: Any, numbers: list[int]) -> bytes:
        choices = body.get_array(found, "choices")
        if found is None and _DONE in event:
            return b"" if self.awaits_tools else event
        if not choices and body.get_object(found, "usage") and (self.awaits_tools or not self._asks_usage):
            return b""
        if self._rounds or self.awaits_tools or self._calls.hides:
            return self._edited(event, numbers)
        told = [choice for choice in choices if body.get_string(body.get_object(choice, "delta"), "role")]
        self._roles.update(body.get_count(choice, "index") for choice in told)
        return event

    def _edited(self, event: bytes, numbers: list[int]) -> bytes:
        name, data = sse.parse(event)
        found = body.object_members(data)
        choices = elements(found, "choices")
        seen, worth = self._seen(choices, "delta", numbers)
        usage = found.get("usage", NULL)
        told = usage != NULL and not self.awaits_tools and not any(map(self._calls.is_hidden, numbers))
        if choices and not worth and not told:
            return b""
        changes = {} if seen == choices else {"choices": b"[" + b",".join(seen) + b"]"}
        if usage != NULL and (self._rounds or self.awaits_tools):
            changes["usage"] = NULL if self.awaits_tools else self._sum()
        if not changes and self._id and self._id in event:
            return event.replace(self._id, self._new_id, 1)
        if self._rounds and "id" in found:
            changes["id"] = self._first_id
        return sse.encode(name.decode(), body.join_members({**found, **changes})) if changes else event

    def _seen(self, choices: list[bytes], member: str, numbers: list[int]) -> tuple[list[bytes], bool]:
        """Choices as the client sees them, and whether they hold anything."""
        left = iter(numbers)
        seen = [self._choice(raw, member, left) for raw in choices]
        return [raw for raw, _ in seen], any(worth for _, worth in seen)

    def _choice(self, raw: bytes, member: str, numbers: Iterator[int]) -> tuple[bytes, bool]:
        choice = body.object_members(raw)
        said, place = body.object_members(choice.get(member, NULL)), body.index_of(choice)
        seen = self._without_offered(said, member, numbers)
        if self._rounds and member == "delta" and place in self._roles:
            seen.pop("role", b"")
        ends = choice.get("finish_reason", NULL) != NULL
        named = "role" in seen and not self._roles
        spoken = any(text not in _NOTHING for name, text in seen.items() if name != "role")
        worth = spoken or named or (ends and not self.awaits_tools)
        if worth and "role" in seen:
            self._roles.add(place)
        changes = {} if seen == said else {member: body.join_members(seen)}
        if ends and self.awaits_tools:
            changes["finish_reason"] = NULL
        return body.join_members({**choice, **changes}) if changes else raw, worth

    def _without_offered(
        self, said: Mapping[str, bytes], member: str, numbers: Iterator[int]
    ) -> dict[str, bytes]:
        """What was said less the calls of offered tools; a stream's other ones take their numbers."""
        calls = list(zip(elements(said, "tool_calls"), numbers, strict=False))
        if not calls or not self._calls.hides:
            return dict(said)
        own = [(number, piece) for piece, number in calls if not self._calls.is_hidden(number)]
        left = [self._calls.shown(*one) if member == "delta" else one[1] for one in own]
        less = {name: raw for name, raw in said.items() if name != "tool_calls"}
        return {**said, "tool_calls": b"[" + b",".join(left) + b"]"} if left else less

    def _sum(self) -> bytes:
        return body.dumps(sum_counts(self._spent, self._usage))

    def filter_body(self, data: bytes) -> bytes:
        answer = body.object_members(data)
        numbers = self._learn(body.loads(data), "message")
        self._done, self._choices = True, elements(answer, "choices")
        self._first_id = self._first_id or answer.get("id", b"")
        if self.awaits_tools:
            self._said.take(self._choices, "message")
            return b""
        if not answer or not (self._rounds or self._calls.hides):
            return data
        choices, _ = self._seen(self._choices, "message", numbers)
        changes = {"choices": b"[" + b",".join([*map(self._continued, choices[:1]), *choices[1:]]) + b"]"}
        if self._rounds:
            changes.update(id=self._first_id, usage=self._sum())
        return body.join_members({**answer, **changes})

    def _continued(self, raw: bytes) -> bytes:
        """The first choice begins with what was said before tools were called."""
        choice = body.object_members(raw)
        message = body.object_members(choice.get("message", NULL))
        for name, text in self._said.texts.items():
            message[name] = text[:-1] + inside(message.get(name, NULL)) + b'"'
        return body.join_members({**choice, "message": body.join_members(message)})

    def follow_up(self, results: Results) -> bytes:
        message = Message()
        message.take_stream(self._kept)
        message.take(self._choices, "message")
        back = [{"role": "tool", "tool_call_id": call.id, "content": as_text(told)} for call, told in results]
        new = b",".join([message.to_json(), *map(body.dumps, back)])
        messages = with_elements(self._request["messages"], after=new)
        self._request = {**self._request, **self._later, "messages": messages}
        self._spent = sum_counts(self._spent, self._usage)
        self._rounds += 1
        self._begin()
        return body.join_members(self._request)


def _is_text(run: bytes, count: int) -> bool:
    """Each of so many events is a piece of an answer that goes on, and of no call. Inside a text the
    quotes of these words would be escaped."""
    if b"_call" in run or b'"finish_reason":"' in run:
        return False
    if run.count(_NO_END[0]) == count:
        return True
    ends = run.count(b'"finish_reason"') > sum(map(run.count, _NO_END))
    return not ends and run.count(b'"delta"') >= count and b'"error"' not in run
