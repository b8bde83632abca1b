"""One interception's record while it grows."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import replace

from ..config.settings import Records
from ..errors import RecordingFailed
from ..model import Failure, Turn, Usage
from .events import Ended, Event, ModelThought, Prompt, Started, TokenUse, ToolUse, now
from .recorder import Recorder

_log = logging.getLogger("aibridge.records")
_NO_LAST_EVENT = Failure("unknown", "the answer ended without its last event")


class Journal:
    """Tells the recorder what is new. `begin` and the first `end` wait until it is written."""

    def __init__(self, recorder: Recorder, keep: Records, started: Started) -> None:
        self._recorder, self._keep, self._started = recorder, keep, started
        self._prompt = Prompt(started.id, "", started.started_at)
        self._turn, self._usage = Turn(), Usage()
        self._calls = self._thoughts = 0
        self._digest = hashlib.sha256()
        self._ended = Ended(started.id, started.started_at)
        self._closed = False
        self.exact = True

    @property
    def id(self) -> str:
        return self._started.id

    def begin(self, prompt: str) -> None:
        """Raises RecordingFailed; the upstream is then not called."""
        first: list[Event] = [self._started]
        if prompt and self._keep.prompts:
            self._prompt = replace(self._prompt, prompt=prompt)
            first.append(self._prompt)
        self._recorder.write(*first, dear=False)

    def answered(self, status: int) -> None:
        """The upstream's head is known."""
        self._ended = replace(self._ended, status_code=status)

    def received(self, piece: bytes) -> None:
        """Bytes of the upstream's answer, as they came."""
        if self._ended.first_byte_at.year < self._started.started_at.year:
            self._ended = replace(self._ended, first_byte_at=now())
        self._digest.update(piece)

    def learn(self, turn: Turn, number: int = 0) -> None:
        """Records what `turn` holds and was not told before."""
        news = list(self._news(turn, number))
        self._turn = turn
        if news:
            self._recorder.record(*news)

    def _news(self, turn: Turn, number: int) -> Iterator[Event]:
        moment = now()
        if self._prompt.prompt and turn.response_id != self._prompt.provider_response_id:
            self._prompt = replace(self._prompt, provider_response_id=turn.response_id)
            yield self._prompt
        if turn.usage != self._usage:
            self._usage = turn.usage
            yield TokenUse(self.id, number, turn.response_id, turn.model, turn.usage, moment)
        for position, call in enumerate(turn.tool_calls[self._calls :], self._calls):
            said = call.input if self._keep.tool_inputs else ""
            yield ToolUse(
                self.id, number, position, turn.response_id, call.id, call.item_id, call.name, said, moment
            )  # fmt: skip
        self._calls = len(turn.tool_calls)
        if self._keep.thoughts:
            for position, thought in enumerate(turn.thoughts[self._thoughts :], self._thoughts):
                yield ModelThought(self.id, number, position, thought.content, thought.source, moment)
            self._thoughts = len(turn.thoughts)

    def end(self, failure: Failure = Failure(), complete: bool = True) -> None:
        """The interception is over: with `failure`, else with what the answer itself told.
        Called again, it amends what it said. Never raises: the client's answer goes on."""
        told = failure or self._turn.failure or (Failure() if complete else _NO_LAST_EVENT)
        ended = replace(
            self._ended,
            error_type=told.type,
            error_message=told.message,
            wire_exact=self.exact,
            response_sha256=self._digest.hexdigest(),
            usage=self._usage,
            models=(self._turn.model, self._started.model),
        )
        if self._closed and ended == self._ended:
            return
        self._ended = replace(ended, ended_at=now())
        try:
            self._tell()
        except RecordingFailed:
            _log.exception("the end of interception %s waits for the database", self.id)

    def _tell(self) -> None:
        if self._closed:
            self._recorder.record(self._ended)
        else:
            self._closed = True
            self._recorder.write(self._ended, dear=True)
