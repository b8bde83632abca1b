"""All metrics: their names, labels and meanings, and the creation of the Prometheus objects.

The table of docs/observe.md is generated from them (`metrics_table`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..records.rows import clean_text

PREFIX = "aibridge_"
COOLING = "key_rests_until"
OTHER = "other"
_MAX_LABEL_LENGTH = 128
# How many values of a label are distinguished, of labels that clients or upstreams fill.
LIMITS: Mapping[str, int] = {"model": 100, "name": 200, "initiator_id": 1000, "type": 50, "limit": 200}
_REQUEST_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_OVERHEAD_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_KEY_COUNTS = (0.0, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric. `options` are for the gauges and histograms of prometheus_client."""

    name: str
    type: str
    labels: tuple[str, ...]
    meaning: str
    options: tuple[tuple[str, Any], ...] = ()


def _counter(name: str, labels: str, meaning: str) -> Metric:
    return Metric(name, "counter", tuple(labels.split()), meaning)


def _gauge(name: str, labels: str, meaning: str, mode: str = "") -> Metric:
    """`mode` says how the values of several workers are merged. Without it, the value is computed at each scrape."""
    return Metric(name, "gauge", tuple(labels.split()), meaning, (("multiprocess_mode", mode),) * bool(mode))


def _histogram(name: str, labels: str, buckets: tuple[float, ...], meaning: str) -> Metric:
    return Metric(name, "histogram", tuple(labels.split()), meaning, (("buckets", buckets),))


# fmt: off
_ALL = (
    _counter("interceptions_total", "provider model status route method initiator_id client", "bridged requests that ended; `status` is `completed` or `failed`"),
    _gauge("interceptions_inflight", "provider model route", "bridged requests in progress", "livesum"),
    _histogram("interceptions_duration_seconds", "provider model", _REQUEST_SECONDS, "from the arrival of a bridged request to the end of its response"),
    _histogram("time_to_first_byte_seconds", "", _REQUEST_SECONDS, "from the arrival of a bridged request to the first byte for the client"),
    _histogram("overhead_seconds", "provider route", _OVERHEAD_SECONDS, "time to the first byte minus the time that the upstream took"),
    _counter("passthrough_total", "provider route method", "passthrough requests; `route` is the entry of the white list"),
    _counter("prompts_total", "provider model initiator_id client", "recorded user prompts"),
    _counter("tokens_total", "provider model type initiator_id client", "tokens; `type` is `input`, `output`, `cache_read_input_tokens`, `cache_write_input_tokens` or the name of a further kind"),
    _counter("injected_tool_invocations_total", "provider model server name", "calls of MCP servers' tools"),
    _counter("non_injected_tool_selections_total", "provider model name", "calls of the client's own tools"),
    _gauge("circuit_breaker_state", "provider endpoint model", "0 closed, 0.5 half-open, 1 open; the highest of all workers", "livemax"),
    _counter("circuit_breaker_trips_total", "provider endpoint model", "how often a circuit breaker opened"),
    _counter("circuit_breaker_rejects_total", "provider endpoint model", "requests that a circuit breaker refused"),
    _gauge("key_pool_state", "provider state", "keys that are `valid`, `temporary` (cool down for a model) or `unauthorized`, in any worker"),
    _counter("key_pool_state_transitions_total", "provider reason", "keys that started to cool down: `rate_limited` or `unauthorized`"),
    _counter("key_pool_exhaustions_total", "provider outcome", "requests for which no key was left: `rate_limited` or `unauthorized`"),
    _histogram("key_pool_failover_attempts", "provider", _KEY_COUNTS, "keys tried for one request; 0: all were cooling down"),
    _gauge("limit_used_ratio", "limit", "share of a limit that is used by who was admitted last; 1: all of it", "livemostrecent"),
    _counter("limit_refusals_total", "limit mode", "requests for which a limit had no room; refused if the mode is `enforce`"),
    _gauge("provider_info", "provider_name provider_type status", "1; `status` is `enabled` or `disabled`"),
    _gauge("records_spooled", "", "events in the logs of this host, also of dead workers, that are not in the database yet"),
    _gauge("records_behind_seconds", "", "age of the oldest of these events in seconds"),
    _gauge("records_behind_bytes", "", "size of these events in the logs"),
    _counter("records_rejected_total", "", "events that the database rejected; they are kept in `rejected/` in the log's folder"),
    _counter("records_unconfirmed_total", "", 'waits for a commit (`durability = "database"`) that took too long'),
    _counter("unpriced_total", "", "interceptions that used tokens without a known price"),
    _counter("retention_deleted_total", "", "interceptions that lost their content or were deleted by age"),
    _counter("records_lost_total", "", "events that could not be written anywhere; must stay 0"),
)
# fmt: on
METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _ALL}
_INTERNAL = _gauge(
    COOLING, "provider key reason", "what key_pool_state is made of, not shown itself", "livemax"
)


class LabelValues:
    """Distinguishes the first values of a label, as many as LIMITS says; later ones become `other`.

    >>> values = LabelValues()
    >>> [values.bounded("model", f"m{number}") for number in range(102)][99:]
    ['m99', 'other', 'other']
    >>> values.bounded("model", "m0"), values.bounded("route", "/x")
    ('m0', '/x')
    """

    def __init__(self) -> None:
        self._known: Mapping[str, set[str]] = {label: set() for label in LIMITS}

    def bounded(self, label: str, value: str) -> str:
        if label not in self._known:
            return value
        known = self._known[label]
        text = value if value in known else clean_text(value[:_MAX_LABEL_LENGTH])
        if text not in known:
            if len(known) >= LIMITS[label]:
                return OTHER
            known.add(text)
        return text


class Instruments:
    """Called with a metric's name and label values, returns the Prometheus child to count with."""

    def __init__(self, registry: Any) -> None:
        """`registry` is None if workers count in files."""
        stored = [metric for metric in (*_ALL, _INTERNAL) if metric.type != "gauge" or metric.options]
        self._metrics = {metric.name: (metric.labels, _create(metric, registry)) for metric in stored}
        self._values = LabelValues()
        self._child = cache(self._lookup)

    def __call__(self, name: str, *values: str) -> Any:
        labels, _ = self._metrics[name]
        return self._child(name, *map(self._values.bounded, labels, values))

    def resume(self, families: Iterable[Any]) -> None:
        """Distinguishes first what other workers did: a new worker adds no values to a full label."""
        for family in families:
            for sample in family.samples if family.name.startswith(PREFIX) else ():
                for label, value in sample.labels.items():
                    self._values.bounded(label, value)

    def _lookup(self, name: str, *values: str) -> Any:
        labels, metric = self._metrics[name]
        return metric.labels(*values) if labels else metric


def _create(metric: Metric, registry: Any) -> Any:
    import prometheus_client  # slow to import

    kind = getattr(prometheus_client, metric.type.title())
    return kind(
        PREFIX + metric.name, metric.meaning, metric.labels, registry=registry, **dict(metric.options)
    )


def metrics_table() -> Iterator[str]:
    """Yields the rows of that table."""
    for metric in _ALL:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        yield f"| `{metric.name}` | {metric.type} | {labels} | {metric.meaning} |"
