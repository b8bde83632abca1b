"""One interception's record while it grows."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from time import monotonic

from ..config.settings import Records
from ..errors import RecordingFailed
from ..hooks import Hooks
from ..model import Failure, Turn
from .events import (
    EPOCH,
    Answered,
    Ended,
    Event,
    FirstByte,
    InterceptionEnded,
    InterceptionStarted,
    KeyUsed,
    ModelThought,
    Noted,
    Prompt,
    Started,
    TokenUse,
    ToolUse,
    now,
)
from .recorder import Recorder

_log = logging.getLogger("aibridge.records")
_NO_LAST_EVENT = Failure("unknown", "the answer ended without its last event")


class Journal:
    """Tells the recorder what is new. `begin` and the first `end` wait until it is written."""

    def __init__(self, recorder: Recorder, keep: Records, hooks: Hooks, started: Started) -> None:
        self._recorder, self._keep, self._hooks = recorder, keep, hooks
        self.id, self._model = started.id, started.model
        self._started = started
        self._prompted = False
        self._turn = Turn()
        self._calls = self._thoughts = 0
        self._digest = hashlib.sha256()
        self._status = 0
        self._mask: Callable[[str], str] = str
        self._first_byte_at = EPOCH
        self._begun = self._sent = self._received = monotonic()
        self._told = FirstByte(started, 0.0, 0.0)
        self._ended: tuple[object, ...] = ()
        self.exact = True

    def begin(self, prompt: str) -> None:
        """Raises RecordingFailed; the upstream is then not called."""
        first: list[Event] = [self._started]
        self._prompted = bool(prompt) and self._keep.prompts
        if self._prompted:
            first.append(Prompt(self.id, prompt, self._started.started_at))
        self._recorder.write(*first, dear=False)
        self._hooks.tell(InterceptionStarted(self._started))
        self._note(first[1:])

    def sending(self) -> None:
        """From now on it is the upstream's time."""
        self._sent = monotonic()

    def answered(self, status: int, hint: str = "", mask: Callable[[str], str] = str) -> None:
        """The upstream's head is known, and to which credential it answered; `mask` takes that out of
        what the upstream says."""
        self._status, self._mask = status, mask
        if hint not in ("", self._started.credential_hint):
            self._record([KeyUsed(self.id, hint)])

    def received(self, piece: bytes) -> None:
        """Bytes of the upstream's answer, as they came."""
        if self._first_byte_at is EPOCH:
            self._first_byte_at, self._received = now(), monotonic()
        self._digest.update(piece)

    def giving(self) -> None:
        """A piece goes to the client."""
        if not self._told.seconds:
            seconds = monotonic() - self._begun
            waited = self._received - self._sent
            self._told = FirstByte(self._started, seconds, seconds - waited)
            self._hooks.tell(self._told)

    def learn(self, turn: Turn, number: int = 0) -> None:
        """Records what `turn` holds and was not told before."""
        news = list(self._news(turn, number))
        self._turn = turn
        if news:
            self._record(news)

    def _record(self, news: list[Event]) -> None:
        self._recorder.record(*news)
        self._note(news)

    def _note(self, news: list[Event]) -> None:
        if self._hooks.hears(Noted):
            for event in news:
                self._hooks.tell(Noted(self._started, event))

    def _news(self, turn: Turn, number: int) -> Iterator[Event]:
        moment = now()
        if self._prompted and turn.response_id != self._turn.response_id:
            yield Answered(self.id, turn.response_id)
        if turn.usage != self._turn.usage:
            yield TokenUse(self.id, number, turn.response_id, turn.model, turn.usage, moment)
        for position, call in enumerate(turn.tool_calls[self._calls :], self._calls):
            said = call.input if self._keep.tool_inputs else ""
            place = (self.id, number, position, turn.response_id)
            yield ToolUse(*place, call.id, call.item_id, call.name, said, moment)
        self._calls = len(turn.tool_calls)
        if self._keep.thoughts:
            for position, thought in enumerate(turn.thoughts[self._thoughts :], self._thoughts):
                yield ModelThought(self.id, number, position, thought.content, thought.source, moment)
            self._thoughts = len(turn.thoughts)

    def end(self, failure: Failure = Failure(), complete: bool = True) -> None:
        """The interception is over: with `failure`, else with what the answer itself told.
        Called again, it amends what it said. Never raises: the client's answer goes on."""
        told = failure or self._turn.failure or (Failure() if complete else _NO_LAST_EVENT)
        known = (told, self.exact, self._digest.hexdigest())
        if known != self._ended:
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
            usage=self._turn.usage,
            models=(self._turn.model, self._model),
        )
        try:
            if first:
                self._recorder.write(ended, dear=True)
            else:
                self._recorder.record(ended)
        except RecordingFailed:
            _log.exception("the end of interception %s waits to be written", self.id)
        if first:
            if self._first_byte_at is not EPOCH:
                self.giving()
            self._hooks.tell(InterceptionEnded(self._started, ended, self._told.seconds, self._told.overhead))
