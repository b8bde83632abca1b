"""The only loop over upstream responses, streamed or blocking: upstream bytes in, client bytes out, facts
recorded on the way. When the model calls offered tools, they are run and the upstream is asked again.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from functools import partial
from math import inf
from time import monotonic
from typing import Any

from .model import Failure
from .protocols import Fold
from .records.interception import InterceptionRecord
from .turns import Turns
from .waiting import TaskGroup, run_if_large

_ENDS_EARLY = ("client_closed", "policy")


def converse(turns: Turns, record: InterceptionRecord, ping: bytes, idle_interval: float) -> Generator[bytes]:
    """Yields the pieces of the client's response.

    All facts are recorded before the piece with the API's last event is yielded. `ping`, if not empty, is
    yielded between events after `idle_interval` seconds without a piece.

    Raises UpstreamError, ClientDisconnected.
    """
    yield from _relay(turns, record, ping, idle_interval)
    while turns.fold.awaits_tools:
        tool_run = turns.run_tools(record.injected_calls())
        try:
            yield from _wait_for(tool_run, turns, ping, idle_interval)
        finally:  # a tool that was started may have had its effect, even if nobody waits for its result
            turns.record_outcomes(tool_run.outcomes)
        follow_up = turns.send_follow_up(tool_run.outcomes)
        yield from _wait_for(follow_up, turns, ping, idle_interval)
        turns.next_response(follow_up)
        yield from _relay(turns, record, ping, idle_interval)


def _relay(turns: Turns, record: InterceptionRecord, ping: bytes, idle_interval: float) -> Iterator[bytes]:
    """Relays one response. A ping is due after `idle_interval` without output, whatever came in."""
    reader, fold = _ResponseReader(turns, record), turns.fold
    last_output = monotonic()
    for piece in turns.response.iter_body(idle_interval):
        output = reader.feed(piece) if piece else b""
        if output:
            record.first_byte_sent()
        elif fold.awaits_tools and not piece:
            break  # all facts are known, but the upstream does not end the response
        elif ping and reader.allows_ping and (not piece or monotonic() - last_output >= idle_interval):
            output, record.exact = ping, False
        if output:
            yield output
            last_output = monotonic()
    if not reader.ended and (output := reader.end()):
        yield output


class _ResponseReader:
    """Feeds one response to its fold, and records the facts as they become known."""

    __slots__ = ("_fold", "_is_coded", "_record", "_recorded_end", "_response", "_size", "ended")

    def __init__(self, turns: Turns, record: InterceptionRecord) -> None:
        self._response, self._fold, self._record = turns.response, turns.fold, record
        self._is_coded, self._size = turns.is_coded, 0
        record.estimate_output = turns.fold.estimated_output
        self.ended = self._recorded_end = False

    @property
    def allows_ping(self) -> bool:
        return self._fold.at_event_boundary and not self._fold.complete and not self.ended

    def feed(self, piece: bytes) -> bytes:
        fold = self._fold
        self._record.body_received(piece)
        self._size += len(piece)
        if self._is_coded or fold.buffered:
            size = inf if self._is_coded else fold.buffered
            output = run_if_large(size, partial(fold.feed, piece))
        else:
            output = fold.feed(piece)
        if self._response.complete:
            return output + self.end()
        is_end = fold.complete and not self._recorded_end
        _record_facts(fold, self._record, is_end)
        if is_end:
            self._recorded_end = True
            self._record.end()
        return output

    def end(self) -> bytes:
        fold, self.ended = self._fold, True
        estimated = _estimated_output(fold)  # before the end, which may bring half an event
        output = run_if_large(self._size, fold.end)
        _record_facts(fold, self._record, is_end=not fold.awaits_tools)
        if not fold.awaits_tools:
            if not fold.complete:
                self._record.estimate(estimated)
            self._record.end(complete=fold.complete)
        return output


def _wait_for(tasks: TaskGroup[Any], turns: Turns, ping: bytes, idle_interval: float) -> Iterator[bytes]:
    """Waits for parallel tasks, and yields pings meanwhile."""
    while not tasks.wait(turns.client, idle_interval):
        if ping and turns.fold.at_event_boundary:
            yield ping


def record_early_end(fold: Fold, record: InterceptionRecord, failure: Failure) -> None:
    """Records the facts that were read of a truncated response, and why it ended."""
    complete, is_whole, estimated = fold.complete, fold.awaits_tools, _estimated_output(fold)
    run_if_large(record.received_bytes, fold.end)
    _record_facts(fold, record, is_end=True)
    if failure.type in _ENDS_EARLY and complete:
        failure = Failure()  # the response was whole: clients disconnect right after the last event
    if not complete and not is_whole:
        record.estimate(estimated)
    record.end(failure, complete=complete)


def _estimated_output(fold: Fold) -> int:
    return 0 if fold.complete else fold.estimated_output()


def _record_facts(fold: Fold, record: InterceptionRecord, is_end: bool) -> None:
    record.exact = record.exact and fold.exact
    if fold.changed:
        record.record_turn(fold.turn(), is_end)
