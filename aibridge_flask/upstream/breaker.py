"""Circuit breakers: one per endpoint and model of a provider, created at its first failure.

State, counters and the time of opening are pybreaker's. It lacks what is added here: reporting a result
separately from the call, `interval`, the limit of parallel trials, and ignoring late reports.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, time
from typing import NamedTuple

from ..config.settings import BreakerSettings
from ..errors import CircuitOpen, UpstreamTimeout, UpstreamUnreachable
from ..hooks import BreakerRejected, BreakerStateChanged, Hooks
from .shared_state import Flag, SharedState, StateKey

_log = logging.getLogger("aibridge.breaker")
_MAX_BREAKERS = 1000
STATE_CLOSED, STATE_HALF_OPEN, STATE_OPEN = "closed", "half-open", "open"  # pybreaker's constants
_LEVELS = {STATE_CLOSED: 0.0, STATE_HALF_OPEN: 0.5, STATE_OPEN: 1.0}
_FAILURES = (UpstreamUnreachable, UpstreamTimeout)


class BreakerState(NamedTuple):
    """A breaker as it is now. It lets a trial through after `seconds_left`, if it is open."""

    endpoint: str
    model: str
    state: str
    seconds_left: float


class Breakers:
    """The breakers of a provider. Without `limits` (one value or none) every call is admitted."""

    def __init__(
        self,
        provider: str,
        limits: tuple[BreakerSettings, ...],
        failures: frozenset[int],
        shared_state: SharedState,
        hooks: Hooks,
    ) -> None:
        """`failures` are the statuses that count as failures."""
        self._provider, self._limits, self._failures = provider, limits, failures
        self._shared_state, self._hooks = shared_state, hooks
        self._breakers: OrderedDict[StateKey, _Breaker] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def attempt(self, endpoint: str, model: str) -> Iterator[Attempt]:
        """Admits a call, up to the head of its response, whose status is reported to the attempt.

        A call that ends without a status counts as a failure if the upstream is at fault. Raises CircuitOpen.
        """
        attempt = self._admit(endpoint, model) if self._limits else Attempt()
        try:
            yield attempt
        except _FAILURES:
            attempt.report(ok=False)
            raise
        finally:
            attempt.release()

    def _admit(self, endpoint: str, model: str) -> Attempt:
        key = ("breaker", self._provider, endpoint, model)
        breaker, flag = self._breakers.get(key), self._shared_state.get(key)
        if breaker is None and flag is not None:
            breaker = self._create(key)
        try:
            generation = breaker.admit(flag) if breaker else 0
        except CircuitOpen:
            self._hooks.emit(BreakerRejected(self._provider, endpoint, model))
            raise
        return _BreakerAttempt(self, key, generation)

    def report(self, key: StateKey, generation: int, ok: bool) -> None:
        """Counts the result of a call that was admitted in `generation`."""
        breaker = self._breakers.get(key)
        if breaker is None and not ok:
            breaker = self._create(key)
        if breaker:
            breaker.report(generation, ok)

    def release(self, key: StateKey, generation: int) -> None:
        """Frees the slot of a call that ended without a result."""
        if key in self._breakers:
            self._breakers[key].release(generation)

    def is_failure(self, status: int) -> bool:
        return status in self._failures

    def states(self) -> list[BreakerState]:
        """Returns the breakers that this process knows of."""
        prefix = ("breaker", self._provider)
        shared = {
            key: BreakerState(key[2], key[3], flag.value, 0.0)
            for key, flag in self._shared_state.with_prefix(prefix)
        }
        own = {key: breaker.snapshot() for key, breaker in list(self._breakers.items())}
        return list((shared | own).values())

    def _create(self, key: StateKey) -> _Breaker:
        """Clients name models, so only the newest breakers are kept."""
        with self._lock:
            new = _Breaker(key, self._limits[0], self._shared_state, self._hooks)
            breaker = self._breakers.setdefault(key, new)
            while len(self._breakers) > _MAX_BREAKERS:
                self._breakers.popitem(last=False)
        return breaker


class Attempt:
    """A call without a breaker."""

    def report_status(self, status: int) -> None:
        """The head of the response has been read."""

    def report(self, ok: bool) -> None:
        """Reports the result; called once."""

    def release(self) -> None:
        """The call is over; the slot of a trial becomes free."""


class _BreakerAttempt(Attempt):
    def __init__(self, breakers: Breakers, key: StateKey, generation: int) -> None:
        self._breakers, self._key, self._generation = breakers, key, generation
        self._is_reported = False

    def report_status(self, status: int) -> None:
        self.report(ok=not self._breakers.is_failure(status))

    def report(self, ok: bool) -> None:
        self._is_reported = True
        self._breakers.report(self._key, self._generation, ok)

    def release(self) -> None:
        if not self._is_reported:
            self._breakers.release(self._key, self._generation)


class _Breaker:
    """Each change of state begins a new generation; reports of calls admitted in earlier ones are ignored."""

    def __init__(self, key: StateKey, limits: BreakerSettings, state: SharedState, hooks: Hooks) -> None:
        from pybreaker import CircuitBreaker, CircuitMemoryStorage  # imports Redis's client: 0.3 s

        self._key, self._limits, self._shared_state, self._hooks = key, limits, state, hooks
        self._storage = CircuitMemoryStorage(STATE_CLOSED)
        self._circuit = CircuitBreaker(state_storage=self._storage)
        self._lock = threading.Lock()
        self._generation = self._trials = 0
        self._changed_at = self._interval_start = self._half_open_at = 0.0

    def snapshot(self) -> BreakerState:
        state = self._circuit.current_state
        seconds = max(0.0, self._half_open_at - monotonic()) if state == STATE_OPEN else 0.0
        return BreakerState(self._key[2], self._key[3], state, seconds)

    def admit(self, flag: Flag | None) -> int:
        """Returns the generation to report with. `flag` is the shared state. Raises CircuitOpen."""
        with self._lock:
            if flag is not None and flag.at > self._changed_at:
                self._adopt(flag)
            state = self._circuit.current_state
            if state == STATE_OPEN:
                remaining = self._half_open_at - monotonic()
                if remaining > 0:
                    raise CircuitOpen(remaining)
                self._set_state(STATE_HALF_OPEN)
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
                self._count_trial(ok)
            elif self._circuit.current_state == STATE_CLOSED:
                self._count(ok)

    def release(self, generation: int) -> None:
        with self._lock:
            if generation == self._generation and self._trials:
                self._trials -= 1

    def _count_trial(self, ok: bool) -> None:
        self._trials -= 1
        if not ok:
            self._set_state(STATE_OPEN)
            return
        self._storage.increment_success_counter()
        if self._circuit.success_counter >= self._limits.max_requests:
            self._set_state(STATE_CLOSED)

    def _count(self, ok: bool) -> None:
        if ok or monotonic() - self._interval_start > self._limits.interval:
            self._storage.reset_counter()
            self._interval_start = monotonic()
        if not ok:
            self._storage.increment_counter()
            if self._circuit.fail_counter >= self._limits.failure_threshold:
                self._set_state(STATE_OPEN)

    def _set_state(self, state: str) -> None:
        """Changes the state, shares and logs it."""
        self._change(state, self._limits.timeout)
        self._changed_at = max(time(), self._changed_at)
        if state != STATE_HALF_OPEN:  # each process makes its own trials
            self._changed_at = self._shared_state.put(self._key, state, self._share_seconds).at
        _, provider, endpoint, model = self._key
        _log.warning("circuit breaker of %s%s for %.100r: %s", provider, endpoint, model, state)

    @property
    def _share_seconds(self) -> float:
        """How long others can see the state: longer than any process keeps it open."""
        return 2 * self._limits.timeout + self._limits.interval

    def _adopt(self, flag: Flag) -> None:
        """Takes over the state that another process shared."""
        self._changed_at = flag.at
        if flag.value != self._circuit.current_state and flag.value in (STATE_OPEN, STATE_CLOSED):
            elapsed = self._share_seconds - flag.seconds_left
            self._change(flag.value, self._limits.timeout - elapsed, is_local=False)

    def _change(self, state: str, open_seconds: float, is_local: bool = True) -> None:
        self._generation += 1
        self._trials = 0
        self._interval_start = monotonic()
        self._storage.reset_success_counter()
        change = {
            STATE_OPEN: self._circuit.open,
            STATE_HALF_OPEN: self._circuit.half_open,
            STATE_CLOSED: self._circuit.close,
        }
        change[state]()
        self._half_open_at = monotonic() + open_seconds
        _, provider, endpoint, model = self._key
        self._hooks.emit(BreakerStateChanged(provider, endpoint, model, _LEVELS[state], is_local))
