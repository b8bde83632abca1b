"""The only loop over answers, streamed or not: upstream bytes in, client bytes out, facts on the
side. Where the model asks for offered tools they are run, and the upstream is asked again.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from time import monotonic
from typing import Any

from .model import Failure, Fold
from .records.journal import Journal
from .turns import Turns
from .waiting import TaskGroup


def converse(turns: Turns, journal: Journal, ping: bytes, idle_interval: float) -> Generator[bytes]:
    """Pieces for the client. Everything known is recorded before the piece with the API's last
    event is given out; `ping` stands in where nothing came for `tick` seconds, between events.

    Raises UpstreamError, ClientGone.
    """
    yield from _relay(turns, journal, ping, idle_interval)
    while turns.fold.awaits_tools:
        running = turns.run_tools(journal.injected_calls())
        try:
            yield from _await(running, turns, ping, idle_interval)
        finally:  # a tool that has begun may have done its work, also where nobody waits for it
            turns.tell(running.outcomes)
        asked = turns.send_follow_up(running.outcomes)
        yield from _await(asked, turns, ping, idle_interval)
        turns.next_response(asked)
        yield from _relay(turns, journal, ping, idle_interval)


def _relay(turns: Turns, journal: Journal, ping: bytes, idle_interval: float) -> Iterator[bytes]:
    """One answer. A ping is due where nothing was given for `tick` seconds, also while all is held back."""
    reader, fold = _Reader(turns, journal), turns.fold
    given = monotonic()
    for piece in turns.response.iter_body(idle_interval):
        out = reader.feed(piece) if piece else b""
        if out:
            journal.first_byte_sent()
        elif fold.awaits_tools and not piece:
            break  # it has told all that counts, and does not end
        elif ping and reader.may_ping and (not piece or monotonic() - given >= idle_interval):
            out, journal.exact = ping, False
        if out:
            yield out
            given = monotonic()
    if not reader.ended and (out := reader.end()):
        yield out


class _Reader:
    """Reads one answer, and records what becomes known."""

    __slots__ = ("_answer", "_fold", "_journal", "_told", "ended")

    def __init__(self, turns: Turns, journal: Journal) -> None:
        self._answer, self._fold, self._journal = turns.response, turns.fold, journal
        self.ended = self._told = False

    @property
    def may_ping(self) -> bool:
        return self._fold.at_event_boundary and not self._fold.complete and not self.ended

    def feed(self, piece: bytes) -> bytes:
        fold = self._fold
        self._journal.body_received(piece)
        out = fold.feed(piece)
        if self._answer.complete:
            return out + self.end()
        _learn(fold, self._journal)
        if fold.complete and not self._told:
            self._told = True
            self._journal.end()
        return out

    def end(self) -> bytes:
        fold, self.ended = self._fold, True
        out = fold.end()
        _learn(fold, self._journal)
        if not fold.awaits_tools:
            self._journal.end(complete=fold.complete)
        return out


def _await(work: TaskGroup[Any], turns: Turns, ping: bytes, idle_interval: float) -> Iterator[bytes]:
    """Waits for what goes on beside."""
    while not work.wait(turns.client, idle_interval):
        if ping and turns.fold.at_event_boundary:
            yield ping


def record_early_end(fold: Fold, journal: Journal, failure: Failure) -> None:
    """The end of an answer that broke off: what was seen of it counts."""
    complete = fold.complete
    fold.end()
    _learn(fold, journal)
    if failure.type == "client_closed" and complete:
        failure = Failure()  # it has all it asked for: clients leave right after the last event
    journal.end(failure, complete=complete)


def _learn(fold: Fold, journal: Journal) -> None:
    journal.exact = journal.exact and fold.exact
    if fold.changed:
        journal.record_turn(fold.turn())
