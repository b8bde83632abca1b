"""Prometheus metrics: listens to what happens, and gives the page that is scraped.

Several workers count in a common folder where there is one (`shared`). What settings and key pools
tell is found at each scrape, so that it is right also when a rest is over, which nobody tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from ..config import ProviderSettings
from ..hooks import (
    BreakerRejected,
    BreakerStateChanged,
    Hooks,
    KeyCooledDown,
    KeyCooling,
    KeysExhausted,
    KeysTried,
    PassthroughServed,
    RecordsLost,
)
from ..model import Usage
from ..records.events import (
    EventRecorded,
    FirstByte,
    InterceptionEnded,
    InterceptionStarted,
    Prompt,
    ToolUsage,
)
from ..records.journal import NOT_RUN
from ..records.recorder import Recorder
from ..upstream.keys import KeyPool
from ..waiting import run_in_pool
from . import multiprocess
from .instruments import METRICS, PREFIX, RESTS, Instruments

_OPEN = 1.0


class Metrics:
    """One application's. Those of one process that count in the common folder count as one."""

    def __init__(
        self, hooks: Hooks, recorder: Recorder, providers: Sequence[tuple[ProviderSettings, KeyPool]]
    ) -> None:
        from prometheus_client import CollectorRegistry, values

        self._common = bool(getattr(values.ValueClass, "_multiprocess", False))
        self._registry = CollectorRegistry()
        self._at = _common() if self._common else Instruments(self._registry)
        self._recorder, self._providers = recorder, providers
        self._until: dict[tuple[str, str, str], float] = {}
        for kind, listener in self._listeners().items():
            hooks.on(kind, listener)

    def page(self, accept: str) -> tuple[bytes, str]:
        """The page and its type, as far as `accept` can be followed."""
        from prometheus_client.exposition import choose_encoder

        encode, kind = choose_encoder(accept)
        spooled = run_in_pool(self._recorder.spooled)
        # in files there is no lock; the registry has gevent's, which no other thread may touch
        counted = run_in_pool(multiprocess.families) if self._common else list(self._registry.collect())
        return run_in_pool(lambda: encode(_Families([*self._shown(counted, spooled)]))), kind

    def _listeners(self) -> Mapping[type, Any]:
        return {
            InterceptionStarted: self._started,
            EventRecorded: self._noted,
            FirstByte: self._first_byte,
            InterceptionEnded: self._ended,
            PassthroughServed: lambda told: self._at(
                "passthrough_total", told.provider, told.route, told.method
            ).inc(),
            BreakerStateChanged: self._turned,
            BreakerRejected: self._rejected,
            KeyCooledDown: self._rested,
            KeyCooling: self._rests,
            KeysTried: lambda told: self._at("key_pool_failover_attempts", told.provider).observe(told.count),
            KeysExhausted: self._exhausted,
            RecordsLost: lambda told: self._at("records_lost_total").inc(told.count),
        }

    def _started(self, told: InterceptionStarted) -> None:
        one = told.started
        self._at("interceptions_inflight", one.provider_name, one.model, one.route).inc()

    def _noted(self, told: EventRecorded) -> None:
        one, event = told.started, told.event
        place = (one.provider_name, one.model)
        if isinstance(event, Prompt):
            self._at("prompts_total", *place, one.initiator_id, one.client).inc()
        elif isinstance(event, ToolUsage) and event.invocation_error.startswith(NOT_RUN):
            pass
        elif isinstance(event, ToolUsage) and event.injected:
            self._at("injected_tool_invocations_total", *place, event.server_url, event.tool).inc()
        elif isinstance(event, ToolUsage):
            self._at("non_injected_tool_selections_total", *place, event.tool).inc()

    def _first_byte(self, told: FirstByte) -> None:
        self._at("time_to_first_byte_seconds").observe(told.seconds)
        one = told.started
        self._at("overhead_seconds", one.provider_name, one.route).observe(told.overhead)

    def _ended(self, told: InterceptionEnded) -> None:
        one, ended = told.started, told.ended
        place, who = (one.provider_name, one.model), (one.initiator_id, one.client)
        status = "failed" if ended.error_type else "completed"
        self._at("interceptions_inflight", *place, one.route).dec()
        self._at("interceptions_total", *place, status, one.route, "POST", *who).inc()
        seconds = (ended.ended_at - one.started_at).total_seconds()
        self._at("interceptions_duration_seconds", *place).observe(max(0.0, seconds))
        for kind, count in _kinds(ended.usage):
            if count > 0:
                self._at("tokens_total", *place, kind, *who).inc(count)

    def _turned(self, told: BreakerStateChanged) -> None:
        place = (told.provider, told.endpoint, told.model)
        self._at("circuit_breaker_state", *place).set(told.state)
        if told.state == _OPEN and told.is_local:
            self._at("circuit_breaker_trips_total", *place).inc()

    def _rejected(self, told: BreakerRejected) -> None:
        self._at("circuit_breaker_rejects_total", told.provider, told.endpoint, told.model).inc()

    def _rested(self, told: KeyCooledDown) -> None:
        self._at("key_pool_state_transitions_total", told.provider, told.reason).inc()

    def _exhausted(self, told: KeysExhausted) -> None:
        self._at("key_pool_exhaustions_total", told.provider, told.outcome).inc()

    def _rests(self, told: KeyCooling) -> None:
        """For the other workers, which have boards of their own."""
        place = (told.provider, told.key, told.reason)
        self._until[place] = max(told.until, self._until.get(place, 0.0))
        self._at(RESTS, *place).set(self._until[place])

    def _shown(self, counted: Sequence[Any], spooled: int) -> Iterator[Any]:
        rests: list[KeyCooling] = []
        for family in counted:
            if family.name == PREFIX + RESTS:
                rests = [_rest(sample) for sample in family.samples]
            else:
                # the workers' files do not have them
                family.samples = [one for one in family.samples if not one.name.endswith("_created")]
                yield family
        yield _family("records_spooled", {(): spooled})
        yield _family("provider_info", {_info(provider): 1 for provider, _ in self._providers})
        states: dict[tuple[str, ...], int] = {
            (provider.name, state): count
            for provider, pool in self._providers
            if pool
            for state, count in pool.states(one for one in rests if one.provider == provider.name).items()
        }
        yield _family("key_pool_state", states)


class _Families:
    """What prometheus_client calls a collector."""

    def __init__(self, families: Sequence[Any]) -> None:
        self._families = families

    def collect(self) -> Sequence[Any]:
        return self._families


@cache
def _common() -> Instruments:
    """Two in one process would write over each other's counts."""
    found = Instruments(None)
    found.resume(multiprocess.families())
    return found


def _kinds(usage: Usage) -> Iterator[tuple[str, int]]:
    yield "input", usage.input_tokens
    yield "output", usage.output_tokens
    yield "cache_read_input_tokens", usage.cache_read_input_tokens
    yield "cache_write_input_tokens", usage.cache_write_input_tokens
    yield from usage.metadata.items()


def _rest(sample: Any) -> KeyCooling:
    labels = sample.labels
    return KeyCooling(labels["provider"], labels["key"], labels["reason"], sample.value)


def _info(provider: ProviderSettings) -> tuple[str, str, str]:
    return provider.name, provider.type, "enabled" if provider.enabled else "disabled"


def _family(name: str, values: Mapping[tuple[str, ...], int]) -> Any:
    from prometheus_client.core import GaugeMetricFamily

    metric = METRICS[name]
    found = GaugeMetricFamily(PREFIX + name, metric.meaning, labels=metric.labels)
    for labels, value in values.items():
        found.add_metric(labels, value)
    return found
