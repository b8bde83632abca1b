"""Prometheus metrics: counts events of the hooks, and renders the page that is scraped.

Several workers count in a common folder if there is one (`multiprocess`). Values of settings and key pools
are computed at each scrape: no event is emitted when a cool-down ends.
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
    InterceptionsExpired,
    InterceptionsUnpriced,
    KeyCooledDown,
    KeyCooling,
    KeysExhausted,
    KeysTried,
    LimitRefused,
    LimitUsed,
    PassthroughServed,
    RecordsLost,
    RecordsRejected,
    RecordsUnconfirmed,
)
from ..model import Usage
from ..records.backlog import Backlog
from ..records.events import (
    EventRecorded,
    FirstByte,
    InterceptionEnded,
    InterceptionStarted,
    Prompt,
    ToolUsage,
)
from ..records.interception import NOT_RUN
from ..records.recorder import Recorder
from ..upstream.keys import KeyPool
from ..waiting import FILES
from . import multiprocess
from .instruments import COOLING, METRICS, PREFIX, Instruments

_OPEN = 1.0
_FILES_SECONDS = 30.0


class Metrics:
    """The metrics of one application. All applications of a process share the common folder's instruments."""

    def __init__(
        self, hooks: Hooks, recorder: Recorder, providers: Sequence[tuple[ProviderSettings, KeyPool]]
    ) -> None:
        from prometheus_client import CollectorRegistry, values

        self._is_multiprocess = bool(getattr(values.ValueClass, "_multiprocess", False))
        self._registry = CollectorRegistry()
        self._instruments = _shared_instruments() if self._is_multiprocess else Instruments(self._registry)
        self._recorder, self._providers = recorder, providers
        self._cooling_until: dict[tuple[str, str, str], float] = {}
        for kind, listener in self._listeners().items():
            hooks.on(kind, listener)

    def page(self, accept: str) -> tuple[bytes, str]:
        """Returns the page and its media type, chosen by an `Accept` header. Reads files in a thread."""
        from prometheus_client.exposition import choose_encoder

        encode, media_type = choose_encoder(accept)
        backlog = FILES.run(self._recorder.backlog, _FILES_SECONDS)
        # the registry has gevent's locks, which no other thread may touch; files have none
        stored = (
            FILES.run(multiprocess.collect_families, _FILES_SECONDS)
            if self._is_multiprocess
            else list(self._registry.collect())
        )
        page = FILES.run(lambda: encode(_Collector([*self._families(stored, backlog)])), _FILES_SECONDS)
        return page, media_type

    def _listeners(self) -> Mapping[type, Any]:
        return {
            InterceptionStarted: self._interception_started,
            EventRecorded: self._event_recorded,
            FirstByte: self._first_byte,
            InterceptionEnded: self._interception_ended,
            PassthroughServed: self._passthrough_served,
            BreakerStateChanged: self._breaker_state_changed,
            BreakerRejected: self._breaker_rejected,
            KeyCooledDown: self._key_cooled_down,
            KeyCooling: self._key_cooling,
            KeysTried: self._keys_tried,
            KeysExhausted: self._keys_exhausted,
            RecordsLost: self._records_lost,
            RecordsRejected: self._records_rejected,
            RecordsUnconfirmed: self._records_unconfirmed,
            InterceptionsUnpriced: self._interceptions_unpriced,
            InterceptionsExpired: self._interceptions_expired,
            LimitUsed: self._limit_used,
            LimitRefused: self._limit_refused,
        }

    def _interception_started(self, event: InterceptionStarted) -> None:
        started = event.started
        labels = (started.provider_name, started.model, started.route)
        self._instruments("interceptions_inflight", *labels).inc()

    def _event_recorded(self, event: EventRecorded) -> None:
        started, recorded = event.started, event.event
        labels = (started.provider_name, started.model)
        if isinstance(recorded, Prompt):
            self._instruments("prompts_total", *labels, started.initiator_id, started.client).inc()
        elif isinstance(recorded, ToolUsage) and recorded.invocation_error.startswith(NOT_RUN):
            pass
        elif isinstance(recorded, ToolUsage) and recorded.injected:
            names = (recorded.server_url, recorded.tool)
            self._instruments("injected_tool_invocations_total", *labels, *names).inc()
        elif isinstance(recorded, ToolUsage):
            self._instruments("non_injected_tool_selections_total", *labels, recorded.tool).inc()

    def _first_byte(self, event: FirstByte) -> None:
        self._instruments("time_to_first_byte_seconds").observe(event.seconds)
        started = event.started
        self._instruments("overhead_seconds", started.provider_name, started.route).observe(event.overhead)

    def _interception_ended(self, event: InterceptionEnded) -> None:
        started, ended = event.started, event.ended
        labels, user = (started.provider_name, started.model), (started.initiator_id, started.client)
        status = "failed" if ended.error_type else "completed"
        self._instruments("interceptions_inflight", *labels, started.route).dec()
        self._instruments("interceptions_total", *labels, status, started.route, "POST", *user).inc()
        self._instruments("interceptions_duration_seconds", *labels).observe(event.duration)
        for kind, count in _token_counts(ended.usage):
            if count > 0:
                self._instruments("tokens_total", *labels, kind, *user).inc(count)

    def _passthrough_served(self, event: PassthroughServed) -> None:
        self._instruments("passthrough_total", event.provider, event.route, event.method).inc()

    def _limit_used(self, event: LimitUsed) -> None:
        self._instruments("limit_used_ratio", event.limit).set(event.ratio)

    def _limit_refused(self, event: LimitRefused) -> None:
        self._instruments("limit_refusals_total", event.limit, event.mode).inc()

    def _breaker_state_changed(self, event: BreakerStateChanged) -> None:
        labels = (event.provider, event.endpoint, event.model)
        self._instruments("circuit_breaker_state", *labels).set(event.state)
        if event.state == _OPEN and event.is_local:
            self._instruments("circuit_breaker_trips_total", *labels).inc()

    def _breaker_rejected(self, event: BreakerRejected) -> None:
        self._instruments("circuit_breaker_rejects_total", event.provider, event.endpoint, event.model).inc()

    def _key_cooled_down(self, event: KeyCooledDown) -> None:
        self._instruments("key_pool_state_transitions_total", event.provider, event.reason).inc()

    def _keys_tried(self, event: KeysTried) -> None:
        self._instruments("key_pool_failover_attempts", event.provider).observe(event.count)

    def _keys_exhausted(self, event: KeysExhausted) -> None:
        self._instruments("key_pool_exhaustions_total", event.provider, event.outcome).inc()

    def _key_cooling(self, event: KeyCooling) -> None:
        """Stores the cool-down for the other workers, which may have no shared state."""
        labels = (event.provider, event.key, event.reason)
        self._cooling_until[labels] = max(event.until, self._cooling_until.get(labels, 0.0))
        self._instruments(COOLING, *labels).set(self._cooling_until[labels])

    def _records_lost(self, event: RecordsLost) -> None:
        self._instruments("records_lost_total").inc(event.count)

    def _records_rejected(self, event: RecordsRejected) -> None:
        self._instruments("records_rejected_total").inc(event.count)

    def _records_unconfirmed(self, event: RecordsUnconfirmed) -> None:
        self._instruments("records_unconfirmed_total").inc(event.count)

    def _interceptions_unpriced(self, event: InterceptionsUnpriced) -> None:
        self._instruments("unpriced_total").inc(event.count)

    def _interceptions_expired(self, event: InterceptionsExpired) -> None:
        self._instruments("retention_deleted_total").inc(event.count)

    def _families(self, stored: Sequence[Any], backlog: Backlog) -> Iterator[Any]:
        cooling: list[KeyCooling] = []
        for family in stored:
            if family.name == PREFIX + COOLING:
                cooling = [_to_cooling(sample) for sample in family.samples]
            else:
                # the workers' files have no such samples
                family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
                yield family
        yield _gauge_family("records_spooled", {(): backlog.events})
        yield _gauge_family("records_behind_seconds", {(): backlog.seconds})
        yield _gauge_family("records_behind_bytes", {(): backlog.bytes})
        yield _gauge_family("provider_info", {_info_labels(provider): 1 for provider, _ in self._providers})
        yield _gauge_family("key_pool_state", self._key_states(cooling))

    def _key_states(self, cooling: Sequence[KeyCooling]) -> dict[tuple[str, ...], int]:
        return {
            (provider.name, state): count
            for provider, pool in self._providers
            if pool
            for state, count in pool.states(key for key in cooling if key.provider == provider.name).items()
        }


class _Collector:
    """Implements prometheus_client's interface of a collector."""

    def __init__(self, families: Sequence[Any]) -> None:
        self._families = families

    def collect(self) -> Sequence[Any]:
        return self._families


@cache
def _shared_instruments() -> Instruments:
    """One per process: two would overwrite each other's counts."""
    instruments = Instruments(None)
    instruments.resume(multiprocess.collect_families())
    return instruments


def _token_counts(usage: Usage) -> Iterator[tuple[str, int]]:
    yield "input", usage.input_tokens
    yield "output", usage.output_tokens
    yield "cache_read_input_tokens", usage.cache_read_input_tokens
    yield "cache_write_input_tokens", usage.cache_write_input_tokens
    yield from usage.metadata.items()


def _to_cooling(sample: Any) -> KeyCooling:
    labels = sample.labels
    return KeyCooling(labels["provider"], labels["key"], labels["reason"], sample.value)


def _info_labels(provider: ProviderSettings) -> tuple[str, str, str]:
    return provider.name, provider.type, "enabled" if provider.enabled else "disabled"


def _gauge_family(name: str, values: Mapping[tuple[str, ...], float]) -> Any:
    from prometheus_client.core import GaugeMetricFamily

    metric = METRICS[name]
    family = GaugeMetricFamily(PREFIX + name, metric.meaning, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family
