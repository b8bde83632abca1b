"""The only loop over answers, streamed or not: upstream bytes in, client bytes out, facts on the
side. Where the model asks for offered tools they are run, and the upstream is asked again.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

from .model import Failure, Fold
from .records.journal import Journal
from .turns import Turns


def converse(turns: Turns, journal: Journal, ping: bytes, tick: float) -> Generator[bytes]:
    """Pieces for the client. Everything known is recorded before the piece with the API's last
    event is given out; `ping` stands in where nothing came for `tick` seconds, between events.

    Raises UpstreamError, ClientGone.
    """
    yield from _relay(turns, journal, ping, tick)
    while turns.fold.wants:
        running = turns.run(journal.picked())
        try:
            while not running.wait(turns.client, tick):
                yield from _pinged(turns.fold, ping)
        finally:  # a tool that has begun may have done its work, also where nobody waits for it
            turns.tell(running.results)
        turns.ask_again(running.results)
        yield from _relay(turns, journal, ping, tick)


def _relay(turns: Turns, journal: Journal, ping: bytes, tick: float) -> Iterator[bytes]:
    """One answer."""
    answer, fold = turns.answer, turns.fold
    ended = told = False
    for piece in answer.pieces(tick):
        if not piece:
            if fold.wants:  # it has told all that counts, and does not end
                break
            if ping and fold.between and not fold.complete:
                journal.exact = False
                yield ping
            continue
        journal.received(piece)
        out = fold.feed(piece)
        if answer.complete:
            ended, out = True, out + fold.end()
        _learn(fold, journal)
        if ended or (fold.complete and not told):
            told = True
            _end(fold, journal)
        if out:
            journal.giving()
            yield out
    if not ended:
        out = fold.end()
        _learn(fold, journal)
        _end(fold, journal)
        if out:
            yield out


def _pinged(fold: Fold, ping: bytes) -> Iterator[bytes]:
    if ping and fold.between:
        yield ping


def settle(fold: Fold, journal: Journal, failure: Failure) -> None:
    """The end of an answer that broke off: what was seen of it counts."""
    complete = fold.complete
    fold.end()
    _learn(fold, journal)
    if failure.type == "client_closed" and complete:
        failure = Failure()  # it has all it asked for: clients leave right after the last event
    journal.end(failure, complete=complete)


def _end(fold: Fold, journal: Journal) -> None:
    if not fold.wants:
        journal.end(complete=fold.complete)


def _learn(fold: Fold, journal: Journal) -> None:
    journal.exact = journal.exact and fold.exact
    if fold.changed:
        journal.learn(fold.turn())
