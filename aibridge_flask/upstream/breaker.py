"""Circuit breakers: one for each endpoint and model of a provider, made when it first fails.

State, counts and time of opening are pybreaker's. Ours are what it does not know: a report apart
from the call, `interval`, the limit of trials at once, and that a late report counts no more.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from time import time
from typing import cast

from ..config.settings import BreakerSettings
from ..errors import CircuitOpen, UpstreamTimeout, UpstreamUnreachable
from ..hooks import BreakerRejected, BreakerStateChanged, Hooks
from .shared_state import Flag, SharedState, StateKey

_log = logging.getLogger("aibridge.breaker")
_SIZE = 1000
_CLIP = 256
STATE_CLOSED, STATE_HALF_OPEN, STATE_OPEN = "closed", "half-open", "open"  # pybreaker's words
_LEVELS = {STATE_CLOSED: 0.0, STATE_HALF_OPEN: 0.5, STATE_OPEN: 1.0}
_FAILURES = (UpstreamUnreachable, UpstreamTimeout)


class Breakers:
    """A provider's breakers; with no limits every call is admitted."""

    def __init__(
        self,
        provider: str,
        limits: tuple[BreakerSettings, ...],
        failures: frozenset[int],
        shared_state: SharedState,
        hooks: Hooks,
    ) -> None:
        self._provider, self._limits, self._failures = provider, limits, failures
        self._shared_state, self._hooks = shared_state, hooks
        self._all: OrderedDict[StateKey, _Breaker] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def attempt(self, endpoint: str, model: str) -> Iterator[Attempt]:
        """One call up to its answer's head, whose status is told to the attempt. What ends it
        otherwise is a failure if the upstream is to blame. Raises CircuitOpen."""
        attempt = self._admit(endpoint, model[:_CLIP]) if self._limits else Attempt()
        try:
            yield attempt
        except _FAILURES:
            attempt.report(ok=False)
            raise
        finally:
            attempt.release()

    def _admit(self, endpoint: str, model: str) -> Attempt:
        key = ("breaker", self._provider, endpoint, model)
        breaker, flag = self._all.get(key), self._shared_state.get(key)
        if breaker is None and flag is not None:
            breaker = self._made(key)
        try:
            generation = breaker.admit(flag) if breaker else 0
        except CircuitOpen:
            self._hooks.emit(BreakerRejected(self._provider, endpoint, model))
            raise
        return _BreakerAttempt(self, key, generation)

    def report(self, key: StateKey, generation: int, ok: bool) -> None:
        breaker = self._all.get(key)
        if breaker is None and not ok:
            breaker = self._made(key)
        if breaker:
            breaker.report(generation, ok)

    def release(self, key: StateKey, generation: int) -> None:
        if key in self._all:
            self._all[key].release(generation)

    def is_failure(self, status: int) -> bool:
        return status in self._failures

    def _made(self, key: StateKey) -> _Breaker:
        """Models are named by clients, so that only the newest are kept."""
        with self._lock:
            breaker = self._all.setdefault(
                key, _Breaker(key, self._limits[0], self._shared_state, self._hooks)
            )
            while len(self._all) > _SIZE:
                self._all.popitem(last=False)
        return breaker


class Attempt:
    """A call that no breaker watches."""

    def report_status(self, status: int) -> None:
        """The answer's head is there."""

    def report(self, ok: bool) -> None:
        """How it went, told once."""

    def release(self) -> None:
        """It is over; a trial's place is free again."""


class _BreakerAttempt(Attempt):
    def __init__(self, breakers: Breakers, key: StateKey, generation: int) -> None:
        self._breakers, self._key, self._generation = breakers, key, generation
        self._settled = False

    def report_status(self, status: int) -> None:
        self.report(ok=not self._breakers.is_failure(status))

    def report(self, ok: bool) -> None:
        self._settled = True
        self._breakers.report(self._key, self._generation, ok)

    def release(self) -> None:
        if not self._settled:
            self._breakers.release(self._key, self._generation)


class _Breaker:
    """Its generation tells calls of before a change of state from those of after it."""

    def __init__(self, key: StateKey, limits: BreakerSettings, state: SharedState, hooks: Hooks) -> None:
        from pybreaker import CircuitBreaker, CircuitMemoryStorage  # it loads Redis's client: 0.3 s

        self._key, self._limits, self._shared_state, self._hooks = key, limits, state, hooks
        self._storage = CircuitMemoryStorage(STATE_CLOSED)
        self._circuit = CircuitBreaker(state_storage=self._storage)
        self._lock = threading.Lock()
        self._generation = self._trials = 0
        self._changed_at = self._window = 0.0

    def admit(self, flag: Flag | None) -> int:
        """The generation to settle with. Raises CircuitOpen."""
        with self._lock:
            if flag is not None and flag.at > self._changed_at:
                self._follow(flag)
            state = self._circuit.current_state
            if state == STATE_OPEN:
                left = self._opened_at + self._limits.timeout - time()
                if left > 0:
                    raise CircuitOpen(left)
                self._turn(STATE_HALF_OPEN)
                state = STATE_HALF_OPEN
            if state == STATE_HALF_OPEN:
                if self._trials >= self._limits.max_requests:
                    raise CircuitOpen(1)
                self._trials += 1
            return self._generation

    def report(self, generation: int, ok: bool) -> None:
        with self._lock:
            if generation != self._generation:
                return
            if self._circuit.current_state == STATE_HALF_OPEN:
                self._settle_trial(ok)
            elif self._circuit.current_state == STATE_CLOSED:
                self._count(ok)

    def release(self, generation: int) -> None:
        """The call told nothing about the upstream."""
        with self._lock:
            if generation == self._generation and self._trials:
                self._trials -= 1

    def _settle_trial(self, ok: bool) -> None:
        self._trials -= 1
        if not ok:
            self._turn(STATE_OPEN)
            return
        self._storage.increment_success_counter()
        if self._circuit.success_counter >= self._limits.max_requests:
            self._turn(STATE_CLOSED)

    def _count(self, ok: bool) -> None:
        if ok or time() - self._window > self._limits.interval:
            self._storage.reset_counter()
            self._window = time()
        if not ok:
            self._storage.increment_counter()
            if self._circuit.fail_counter >= self._limits.failure_threshold:
                self._turn(STATE_OPEN)

    @property
    def _opened_at(self) -> float:
        return cast(datetime, self._storage.opened_at).timestamp()

    def _turn(self, state: str) -> None:
        """Changes the state, and tells all who want to know."""
        self._change(state, time())
        self._changed_at = time()
        if state != STATE_HALF_OPEN:  # each process makes its own trials
            self._changed_at = self._shared_state.put(self._key, state, time() + self._kept).at
        _, provider, endpoint, model = self._key
        _log.warning("circuit breaker of %s%s for %.100r: %s", provider, endpoint, model, state)

    @property
    def _kept(self) -> float:
        """Seconds for which others should hear of it: longer than anybody keeps it open."""
        return 2 * self._limits.timeout + self._limits.interval

    def _follow(self, flag: Flag) -> None:
        """What another process saw."""
        self._changed_at = flag.at
        if flag.value != self._circuit.current_state and flag.value in (STATE_OPEN, STATE_CLOSED):
            self._change(flag.value, flag.at, is_local=False)

    def _change(self, state: str, moment: float, is_local: bool = True) -> None:
        self._generation += 1
        self._trials = 0
        self._window = time()
        self._storage.reset_success_counter()
        change = {
            STATE_OPEN: self._circuit.open,
            STATE_HALF_OPEN: self._circuit.half_open,
            STATE_CLOSED: self._circuit.close,
        }
        change[state]()
        if state == STATE_OPEN:
            self._storage.opened_at = datetime.fromtimestamp(moment, UTC)
        _, provider, endpoint, model = self._key
        self._hooks.emit(BreakerStateChanged(provider, endpoint, model, _LEVELS[state], is_local))
