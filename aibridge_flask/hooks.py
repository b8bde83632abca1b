"""Who wants to hear what happens: typed callables, each given one frozen value.

Nothing is made or called while nobody listens, and a listener that fails breaks nothing.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
_log = logging.getLogger("aibridge")


@dataclass(frozen=True, slots=True)
class BreakerTurned:
    """`state` is 0 closed, 0.5 half-open, 1 open; not `own` is what another process saw."""

    provider: str
    endpoint: str
    model: str
    state: float
    own: bool = True


@dataclass(frozen=True, slots=True)
class BreakerRejected:
    provider: str
    endpoint: str
    model: str


@dataclass(frozen=True, slots=True)
class KeyRested:
    """`reason` is `rate_limited` or `unauthorized`."""

    provider: str
    reason: str


@dataclass(frozen=True, slots=True)
class KeyRests:
    """Until when, for any model, in seconds since 1970; `key` gives nothing of it away."""

    provider: str
    key: str
    reason: str
    until: float


@dataclass(frozen=True, slots=True)
class KeysTried:
    """How many central keys one request took."""

    provider: str
    count: int


@dataclass(frozen=True, slots=True)
class KeysExhausted:
    """No central key was left; `outcome` is `rate_limited` or `unauthorized`."""

    provider: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Arrived:
    """A request to a provider's routes, whatever becomes of it, and the trace that it belongs to."""

    id: str
    traceparent: str
    tracestate: str


@dataclass(frozen=True, slots=True)
class ToolCalled:
    """An MCP server's tool was called for the interception `id`; `began` and `ended` are nanoseconds since
    1970, `error` is a word, or empty."""

    id: str
    server: str
    tool: str
    call_id: str
    began: int
    ended: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class Passed:
    """A passthrough request; `route` is the white list's, not the client's, `status` the answer's. It
    is told before the answer's body goes out."""

    provider: str
    route: str
    method: str
    actor: str
    status: int
    id: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that the bridge answered itself, before anything of it was recorded."""

    id: str
    provider: str
    method: str
    path: str
    status: int
    code: str


@dataclass(frozen=True, slots=True)
class RecordsLost:
    """So many more events could be written nowhere."""

    count: int


class Hooks:
    """Listeners by the type of what they want to hear. `above` hear all that is told here."""

    def __init__(self, *above: Hooks) -> None:
        self._above = above
        self._listeners: dict[type, list[Callable[[Any], None]]] = defaultdict(list)

    def on(self, kind: type[T], listener: Callable[[T], None]) -> None:
        self._listeners[kind].append(listener)

    def hears(self, kind: type) -> bool:
        return kind in self._listeners or any(hooks.hears(kind) for hooks in self._above)

    def tell(self, value: object) -> None:
        for listener in self._listeners.get(type(value), ()):
            try:
                listener(value)
            except Exception:  # noqa: BLE001 - told just below
                _log.exception("a listener failed at %s", type(value).__name__)
        for hooks in self._above:
            hooks.tell(value)
