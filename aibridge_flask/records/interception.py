"""Records one interception while it runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from msgspec.structs import replace

from ..config.settings import RecordSettings
from ..hooks import Hooks
from ..model import EMPTY, Asked, Failure, Tool, ToolCall, Turn, identifier
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
    ToolUsage,
    now,
)
from .recorder import Recorder
from .times import Times
from .usages import Usages, with_estimate

NOT_RUN = "not run: "
_MIXED_CALLS = f"{NOT_RUN}mixed with client tool calls"
_PENDING = "no result yet"
_EARLY_END = f"{NOT_RUN}the answer ended before"
_NO_LAST_EVENT = Failure("unknown", "the answer ended without its last event")
WAITING, RETRYING, STREAMING, TOOL = "waiting", "retrying", "streaming", "tool"


Made = Callable[[Turn], Iterable[Event]]


def _nothing(turn: Turn) -> Iterable[Event]:
    return ()


class InterceptionRecord:
    """Turns what happens to an interception into events.

    What is not recorded yet is appended to the log at once.
    """

    def __init__(
        self, recorder: Recorder, keep: RecordSettings, hooks: Hooks, started: Started, made: Made = _nothing
    ) -> None:
        """`keep` says which contents may be recorded. `made` returns the events of what a response makes."""
        self._recorder, self._keep, self._hooks, self._made = recorder, keep, hooks, made
        self.id, self.started = started.id, started
        self._has_prompt = False
        self._tools: Mapping[str, Tool] = EMPTY
        asked = Asked(started.model, started.provider, started.provider_name, started.profile)
        self._usages = Usages(started.id, asked)
        self._turn_number = 0
        self._reset_turn()
        self._digest = hashlib.sha256()
        self._status = self._attempts = self._answered_attempts = 0
        self._mask: Callable[[str], str] = str
        self._times = Times()
        self._recorded_end: tuple[object, ...] = ()
        self._last_events: list[Event] = []
        self.exact, self.state, self.received_bytes = True, WAITING, 0
        self.estimate_output: Callable[[], int] = int  # the tokens that the response may have so far
        self._was_sent = self._is_estimated = False
        self.limit_id = ""  # of the limit that had no room

    def _reset_turn(self) -> None:
        self._turn = Turn()
        self._call_count = self._thought_count = 0
        self._finished_calls: set[int] = set()

    def begin(self, prompt: str) -> None:
        """Records the start. Raises RecordingFailed; the upstream must not be called then."""
        events: list[Event] = [self.started]
        self._has_prompt = bool(prompt) and self._keep.prompts
        if self._has_prompt:
            events.append(Prompt(self.id, prompt, self.started.started_at))
        self._recorder.begin(*events)
        self._hooks.emit(InterceptionStarted(self.started))
        self._emit_recorded(events[1:])

    def set_offered_tools(self, tools: Sequence[Tool]) -> None:
        """Sets the tools that the bridge runs itself."""
        self._tools = {tool.id: tool for tool in tools}

    def next_turn(self) -> None:
        """The facts recorded from now on belong to the next response."""
        self._turn_number += 1
        self._usages.next_turn(self._turn)
        self._times.turn_ended()
        self._reset_turn()

    def count_attempt(self) -> None:
        """An upstream is asked."""
        self.state = RETRYING if self._attempts > self._answered_attempts else WAITING
        self._attempts += 1

    def tools_started(self) -> None:
        """The bridge runs tools."""
        self.state = TOOL

    @property
    def begun(self) -> float:
        """When the request came, by the monotonic clock."""
        return self._times.begun

    @property
    def tokens(self) -> int:
        """The tokens so far, of all kinds. For any thread."""
        known = self._usages.total()
        cached = known.cache_read_input_tokens + known.cache_write_input_tokens
        return known.input_tokens + cached + max(known.output_tokens, self.estimate_output())

    def upstream_started(self) -> None:
        """The request is about to be sent."""
        self._times.upstream_started()
        self._was_sent = True

    def head_received(self, status: int, hint: str = "", mask: Callable[[str], str] = str) -> None:
        """The head of a response was read. `hint` is that of its credential, `mask` hides it in messages."""
        self._status, self._mask = status, mask
        self._answered_attempts, self.state = self._attempts, STREAMING
        if hint not in ("", self.started.credential_hint):
            self._record([CredentialUsed(self.id, hint)])

    def body_received(self, piece: bytes) -> None:
        """A piece of a response was read."""
        self._times.piece_received()
        self._digest.update(piece)
        self.received_bytes += len(piece)

    def first_byte_sent(self) -> None:
        """A piece goes to the client. Only the first call has an effect."""
        if not self._times.first_byte:
            self._times.first_byte_sent()
            self._hooks.emit(FirstByte(self.started, self._times.first_byte, self._times.overhead))

    def record_turn(self, turn: Turn, ends: bool = False) -> None:
        """Records the facts of `turn` that are new. If it `ends`, they are recorded with the end."""
        events = list(self._new_events(turn))
        self._turn = turn
        if ends and not self._tools:  # outcomes of tools must not come before their calls
            self._last_events += events
        elif events:
            self._record(events)

    def injected_calls(self) -> tuple[ToolCall, ...]:
        """Returns the calls of this turn that the bridge runs itself."""
        return tuple(call for call in self._turn.tool_calls if call.name in self._tools)

    def record_tool_outcome(self, call: ToolCall, error: str = "", milliseconds: int = 0) -> None:
        """Records that a call of `injected_calls` has its result, or failed, and how long it took."""
        calls = enumerate(self._turn.tool_calls)
        unfinished = ((index, other) for index, other in calls if index not in self._finished_calls)
        position = next(index for index, other in unfinished if other == call)
        self._finished_calls.add(position)
        usage = replace(self._tool_usage(position, call, now(), error), duration_ms=milliseconds)
        self._recorder.record(usage)
        self._emit_recorded([usage])

    def estimate(self, output: int = 0) -> None:
        """The response has broken off: adds to its tokens what it has not told, as far as its text shows.

        The upstream bills what it was sent and has answered, also if nobody waits any more.
        """
        if 200 <= self._status < 300 or (self._was_sent and not self._status):
            self._is_estimated = True
            self.record_turn(with_estimate(self._turn, self.started.estimated_input, output), ends=True)

    def end(self, failure: Failure = Failure(), complete: bool = True) -> None:
        """Records the end, with `failure` or else the failure that the response reported.

        May be called again to amend the end. Never raises: the client's response must not fail.
        """
        failure = failure or self._turn.failure or (Failure() if complete else _NO_LAST_EVENT)
        recorded_end = (failure, self.exact, self._digest.hexdigest())
        if recorded_end == self._recorded_end:
            last_events, self._last_events = self._last_events, []
            self._record(last_events)
        else:
            self._finish_calls(failure)
            is_first = not self._recorded_end
            self._recorded_end = recorded_end
            self._record_end(failure, is_first)

    def _record(self, events: list[Event]) -> None:
        self._recorder.record(*events)
        self._emit_new(events)

    def _emit_new(self, events: list[Event]) -> None:
        self._emit_recorded([event for event in events if not _is_pending(event)] if self._tools else events)

    def _emit_recorded(self, events: list[Event]) -> None:
        if self._hooks.has_listeners(EventRecorded):
            for event in events:
                self._hooks.emit(EventRecorded(self.started, event))

    def _new_events(self, turn: Turn) -> Iterator[Event]:
        created_at, number = now(), self._turn_number
        if self._has_prompt and not number and turn.response_id != self._turn.response_id:
            yield PromptAnswered(self.id, identifier(turn.response_id))
        if (turn.response_id, turn.conversation_id) != (self._turn.response_id, self._turn.conversation_id):
            yield from self._made(turn)
        yield from self._usages.changed(turn)
        for position, call in enumerate(turn.tool_calls[self._call_count :], self._call_count):
            yield self._tool_usage(position, call, created_at, _PENDING, turn.response_id)
        self._call_count = len(turn.tool_calls)
        if self._keep.thoughts:
            for position, thought in enumerate(turn.thoughts[self._thought_count :], self._thought_count):
                yield ModelThought(self.id, number, position, thought.content, thought.source, created_at)
            self._thought_count = len(turn.thoughts)

    def _tool_usage(
        self, position: int, call: ToolCall, created_at: datetime, error: str, response_id: str = ""
    ) -> ToolUsage:
        input = call.input if self._keep.tool_inputs else ""
        response_id = identifier(response_id or self._turn.response_id)
        ids = (response_id, identifier(call.id), identifier(call.item_id))
        keys = (self.id, self._turn_number, position, *ids)
        tool = self._tools.get(call.name)
        if tool is None:
            return ToolUsage(*keys, identifier(call.name), input, created_at)
        return ToolUsage(*keys, identifier(tool.name), input, created_at, True, tool.server_url, error)

    def _finish_calls(self, failure: Failure) -> None:
        """Records for each injected call without a result why it was not run."""
        if not self._tools:
            return
        is_mixed = len(self.injected_calls()) < len(self._turn.tool_calls)
        reason = _MIXED_CALLS if is_mixed else _EARLY_END
        if failure:
            reason = f"{NOT_RUN}{self._mask(failure.message)}"
        for position, call in enumerate(self._turn.tool_calls):
            if call.name in self._tools and position not in self._finished_calls:
                self.record_tool_outcome(call, reason)

    def _record_end(self, failure: Failure, is_first: bool) -> None:
        times = self._times
        if times.first_byte_at is not EPOCH:
            self.first_byte_sent()
        duration = times.duration
        ended = Ended(
            id=self.id,
            ended_at=now(),
            status_code=self._status,
            first_byte_at=times.first_byte_at,
            error_type=failure.type,
            error_message=self._mask(failure.message),
            wire_exact=self.exact,
            response_sha256=self._digest.hexdigest(),
            usage=self._usages.total(),
            usages=self._usages.all(),
            is_estimated=self._is_estimated,
            attempts=self._attempts,
            overhead_ms=_milliseconds(times.overhead),
            first_byte_ms=_milliseconds(times.first_byte),
            duration_ms=_milliseconds(duration),
            limit_id=self.limit_id,
        )
        last_events, self._last_events = self._last_events, []
        if is_first:
            self._recorder.end(*last_events, ended)
            self._emit_new(last_events)
            seconds = times.first_byte, times.overhead, duration
            self._hooks.emit(InterceptionEnded(self.started, ended, *seconds))
        else:
            self._recorder.record(*last_events, ended)
            self._emit_new(last_events)


def _is_pending(event: Event) -> bool:
    """An injected call is emitted only once it has run."""
    return isinstance(event, ToolUsage) and event.injected


def _milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 1)
