"""The only loop over an answer, streamed or not: upstream bytes in, client bytes out, facts on
the side."""

from __future__ import annotations

from collections.abc import Iterator

from .model import Answer, Failure, Fold
from .records.journal import Journal


def converse(answer: Answer, fold: Fold, journal: Journal, ping: bytes, tick: float) -> Iterator[bytes]:
    """Pieces for the client. Everything known is recorded before the piece with the API's last
    event is given out; `ping` stands in where nothing came for `tick` seconds, between events.

    Raises UpstreamCut, UpstreamTimeout, ClientGone.
    """
    ended = told = False
    for piece in answer.pieces(tick):
        if not piece:
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
            journal.end(complete=fold.complete)
        if out:
            journal.giving()
            yield out
    if not ended:
        out = fold.end()
        _learn(fold, journal)
        journal.end(complete=fold.complete)
        if out:
            yield out


def settle(fold: Fold, journal: Journal, failure: Failure) -> None:
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
        journal.learn(fold.turn())
