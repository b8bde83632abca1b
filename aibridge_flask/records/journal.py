"""One interception's record while it grows."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from time import monotonic

from ..config.settings import RecordSettings
from ..errors import RecordingFailed
from ..hooks import Hooks
from ..model import EMPTY, Failure, Tool, ToolCall, Turn, Usage
from .events import (
    EPOCH,
    CredentialUsed,
    Ended,
    Event,
    EventRecorded,
    FirstByte,
    InterceptionEnded,
    InterceptionStarted,
    ModelThought,
    Prompt,
    PromptAnswered,
    Started,
    TokenUsage,
    ToolUsage,
    now,
)
from .recorder import Recorder

_log = logging.getLogger("aibridge.records")
NOT_RUN = "not run: "
_MIXED = f"{NOT_RUN}mixed with client tool calls"
_PENDING = "no result yet"
_UNFINISHED = f"{NOT_RUN}the answer ended before"
_NO_LAST_EVENT = Failure("unknown", "the answer ended without its last event")


class Journal:
    """Tells the recorder what is new. `begin` and the first `end` wait until it is written."""

    def __init__(self, recorder: Recorder, keep: RecordSettings, hooks: Hooks, started: Started) -> None:
        self._recorder, self._keep, self._hooks = recorder, keep, hooks
        self.id, self._model = started.id, started.model
        self._started = started
        self._prompted = False
        self._tools: Mapping[str, Tool] = EMPTY
        self._spent = Usage()
        self._parts: tuple[tuple[Usage, tuple[str, ...]], ...] = ()
        self._number = 0
        self._begin_turn()
        self._digest = hashlib.sha256()
        self._status = 0
        self._mask: Callable[[str], str] = str
        self._first_byte_at = EPOCH
        self._begun = self._sent = self._received = monotonic()
        self._waited = 0.0
        self._told = FirstByte(started, 0.0, 0.0)
        self._ended: tuple[object, ...] = ()
        self.exact = True

    def _begin_turn(self) -> None:
        self._turn = Turn()
        self._calls = self._thoughts = 0
        self._settled: set[int] = set()

    def next_turn(self) -> None:
        """What is learnt from now on is of the next answer to the same request."""
        self._spent, self._parts = self._spent.plus(self._turn.usage), (*self._parts, self._part)
        self._number += 1
        self._received = monotonic()  # the tools' time is as little ours as the upstream's
        self._begin_turn()

    def set_offered_tools(self, tools: Sequence[Tool]) -> None:
        """Calls of these are the bridge's to make."""
        self._tools = {tool.id: tool for tool in tools}

    def begin(self, prompt: str) -> None:
        """Raises RecordingFailed; the upstream is then not called."""
        first: list[Event] = [self._started]
        self._prompted = bool(prompt) and self._keep.prompts
        if self._prompted:
            first.append(Prompt(self.id, prompt, self._started.started_at))
        self._recorder.write(*first, must_keep=False)
        self._hooks.emit(InterceptionStarted(self._started))
        self._note(first[1:])

    def upstream_started(self) -> None:
        """From now on it is the upstream's time."""
        self._waited += self._received - self._sent
        self._sent = self._received = monotonic()

    def head_received(self, status: int, hint: str = "", mask: Callable[[str], str] = str) -> None:
        """The upstream's head is known, and to which credential it answered; `mask` takes that out of
        what the upstream says."""
        self._status, self._mask = status, mask
        if hint not in ("", self._started.credential_hint):
            self._record([CredentialUsed(self.id, hint)])

    def body_received(self, piece: bytes) -> None:
        """Bytes of the upstream's answer, as they came."""
        if not self._told.seconds:
            self._received = monotonic()
        if self._first_byte_at is EPOCH:
            self._first_byte_at = now()
        self._digest.update(piece)

    def first_byte_sent(self) -> None:
        """A piece goes to the client."""
        if not self._told.seconds:
            seconds = monotonic() - self._begun
            waited = self._waited + self._received - self._sent
            self._told = FirstByte(self._started, seconds, seconds - waited)
            self._hooks.emit(self._told)

    def record_turn(self, turn: Turn) -> None:
        """Records what `turn` holds and was not told before."""
        news = list(self._news(turn))
        self._turn = turn
        if news:
            self._record(news)

    def injected_calls(self) -> tuple[ToolCall, ...]:
        """The calls of this turn that are the bridge's to make."""
        return tuple(call for call in self._turn.tool_calls if call.name in self._tools)

    def record_tool_outcome(self, call: ToolCall, error: str = "") -> None:
        """A call of `picked` has its result, or failed."""
        calls = enumerate(self._turn.tool_calls)
        position = next(place for place, one in calls if place not in self._settled and one == call)
        self._settled.add(position)
        use = self._use(position, call, now(), error)
        self._recorder.record(use)
        self._note([use])

    def _record(self, news: list[Event]) -> None:
        self._recorder.record(*news)
        self._note([event for event in news if not _is_pending(event)] if self._tools else news)

    def _note(self, news: list[Event]) -> None:
        if self._hooks.has_listeners(EventRecorded):
            for event in news:
                self._hooks.emit(EventRecorded(self._started, event))

    def _news(self, turn: Turn) -> Iterator[Event]:
        moment, number = now(), self._number
        if self._prompted and not number and turn.response_id != self._turn.response_id:
            yield PromptAnswered(self.id, turn.response_id)
        if turn.usage != self._turn.usage:
            yield TokenUsage(self.id, number, turn.response_id, turn.model, turn.usage, moment)
        for position, call in enumerate(turn.tool_calls[self._calls :], self._calls):
            yield self._use(position, call, moment, _PENDING, turn.response_id)
        self._calls = len(turn.tool_calls)
        if self._keep.thoughts:
            for position, thought in enumerate(turn.thoughts[self._thoughts :], self._thoughts):
                yield ModelThought(self.id, number, position, thought.content, thought.source, moment)
            self._thoughts = len(turn.thoughts)

    @property
    def _part(self) -> tuple[Usage, tuple[str, ...]]:
        return self._turn.usage, (self._turn.model, self._model)

    def _use(
        self, position: int, call: ToolCall, moment: datetime, error: str, response: str = ""
    ) -> ToolUsage:
        said = call.input if self._keep.tool_inputs else ""
        place = (self.id, self._number, position, response or self._turn.response_id, call.id, call.item_id)
        tool = self._tools.get(call.name)
        if tool is None:
            return ToolUsage(*place, call.name, said, moment)
        return ToolUsage(*place, tool.name, said, moment, True, tool.server_url, error)

    def _leave(self, failure: Failure) -> None:
        """No call of ours is left without a word on what became of it."""
        if not self._tools:
            return
        mixed = len(self.injected_calls()) < len(self._turn.tool_calls)
        why = f"{NOT_RUN}{self._mask(failure.message)}" if failure else _MIXED if mixed else _UNFINISHED
        for position, call in enumerate(self._turn.tool_calls):
            if call.name in self._tools and position not in self._settled:
                self.record_tool_outcome(call, why)

    def end(self, failure: Failure = Failure(), complete: bool = True) -> None:
        """The interception is over: with `failure`, else with what the answer itself told.
        Called again, it amends what it said. Never raises: the client's answer goes on."""
        told = failure or self._turn.failure or (Failure() if complete else _NO_LAST_EVENT)
        known = (told, self.exact, self._digest.hexdigest())
        if known != self._ended:
            self._leave(told)
            first = not self._ended
            self._ended = known
            self._tell(told, first)

    def _tell(self, told: Failure, first: bool) -> None:
        ended = Ended(
            id=self.id,
            ended_at=now(),
            status_code=self._status,
            first_byte_at=self._first_byte_at,
            error_type=told.type,
            error_message=self._mask(told.message),
            wire_exact=self.exact,
            response_sha256=self._digest.hexdigest(),
            usage=self._spent.plus(self._turn.usage) if self._number else self._turn.usage,
            parts=(*self._parts, self._part),
        )
        try:
            if first:
                self._recorder.write(ended, must_keep=True)
            else:
                self._recorder.record(ended)
        except RecordingFailed:
            _log.exception("the end of interception %s waits to be written", self.id)
        if first:
            if self._first_byte_at is not EPOCH:
                self.first_byte_sent()
            self._hooks.emit(InterceptionEnded(self._started, ended, self._told.seconds, self._told.overhead))


def _is_pending(event: Event) -> bool:
    """Of a call that is ours to make is told once it is made."""
    return isinstance(event, ToolUsage) and event.injected
