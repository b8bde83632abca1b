"""The interceptions that this process serves now: who watches sees them, and an administrator may end one."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import NamedTuple

from .errors import SessionStopped
from .records.interception import InterceptionRecord
from .records.live import Listed, Stop
from .records.rows import clean_text, stored_name
from .waiting import CancellableClient, after_fork, call_from_thread

_ALL_KNOW_SECONDS = 1.2  # workers look each second; what ends before is asked again where nobody knows


class _Served(NamedTuple):
    record: InterceptionRecord
    client: CancellableClient


class InFlight:
    """One per application and process."""

    def __init__(self) -> None:
        self._reset()
        after_fork(self, InFlight._reset)

    def _reset(self) -> None:
        self._served: dict[str, _Served] = {}
        self._stops: dict[str, Stop] = {}
        self._ended: set[str] = set()
        self._due: deque[Stop] = deque()
        self._wakeups: tuple[Callable[[], None], ...] = ()

    def add(self, record: InterceptionRecord, client: CancellableClient) -> Callable[[], object]:
        """Adds an interception; what is returned takes it out again. Raises SessionStopped."""
        if not self._wakeups:
            self._wakeups = (call_from_thread(self._cancel_due),)
        self._served[record.id] = _Served(record, client)
        for stop in tuple(self._stops.values()):
            if stop.covers(record.started) and monotonic() < stop.ends_at:
                del self._served[record.id]
                raise _stopped(stop)
        return partial(self._served.pop, record.id, None)

    def list(self) -> list[Listed]:
        """Returns what is served now, the oldest first. For any thread."""
        return [_listed(served.record) for served in tuple(self._served.values())]

    def stop(self, stops: Sequence[Stop], all_know: bool = False) -> None:
        """Refuses the sessions, and once all workers do so, ends the interceptions. May be repeated.

        `all_know`: they do now. For any thread.
        """
        now = monotonic()
        standing = [stop for stop in self._stops.values() if now < stop.ends_at]
        self._stops = {stop.id: stop for stop in (*standing, *stops)}
        ended = self._ended & self._stops.keys()
        due = [stop for stop in stops if all_know or now - stop.made_at >= _ALL_KNOW_SECONDS]
        self._due.extend(stop for stop in due if stop.id not in ended)
        self._ended = ended | {stop.id for stop in due}
        for wake_up in self._wakeups if self._due else ():
            wake_up()

    def _cancel_due(self) -> None:
        """Ends also what the session has asked for before this process knew."""
        while self._due:
            stop = self._due.popleft()
            for record, client in tuple(self._served.values()):
                is_late = stop.covers(record.started) and record.begun > stop.made_at
                if record.id == stop.id or is_late:
                    client.cancel(partial(_stopped, stop))


def _stopped(stop: Stop) -> SessionStopped:
    return SessionStopped(time.time() + stop.ends_at - monotonic())


def _listed(record: InterceptionRecord) -> Listed:
    started = record.started
    return Listed(
        id=record.id,
        initiator_id=stored_name(started.initiator_id),
        client=started.client,
        session_id=clean_text(started.client_session_id),
        model=clean_text(started.model),
        age_ms=round((monotonic() - record.begun) * 1000),
        bytes=record.received_bytes,
        tokens=record.tokens,
        state=record.state,
    )
