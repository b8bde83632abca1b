"""Who wants to hear what happens: typed callables, each given one frozen value.

Nothing is made or called while nobody listens, and a listener that fails breaks nothing.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeVar

from msgspec import Struct

T = TypeVar("T")
_log = logging.getLogger("aibridge")


class BreakerStateChanged(Struct, frozen=True):
    """`state` is 0 closed, 0.5 half-open, 1 open; not `own` is what another process saw."""

    provider: str
    endpoint: str
    model: str
    state: float
    own: bool = True


class BreakerRejected(Struct, frozen=True):
    provider: str
    endpoint: str
    model: str


class KeyCooledDown(Struct, frozen=True):
    """`reason` is `rate_limited` or `unauthorized`."""

    provider: str
    reason: str


class KeyCooling(Struct, frozen=True):
    """Until when, for any model, in seconds since 1970; `key` gives nothing of it away."""

    provider: str
    key: str
    reason: str
    until: float


class KeysTried(Struct, frozen=True):
    """How many central keys one request took."""

    provider: str
    count: int


class KeysExhausted(Struct, frozen=True):
    """No central key was left; `outcome` is `rate_limited` or `unauthorized`."""

    provider: str
    outcome: str


class RequestArrived(Struct, frozen=True):
    """A request to a provider's routes, whatever becomes of it, and the trace that it belongs to."""

    id: str
    traceparent: str
    tracestate: str


class ToolCalled(Struct, frozen=True):
    """An MCP server's tool was called for the interception `id`; `began` and `ended` are nanoseconds since
    1970, `error` is a word, or empty."""

    id: str
    server: str
    tool: str
    call_id: str
    began: int
    ended: int
    error: str = ""


class PassthroughServed(Struct, frozen=True):
    """A passthrough request; `route` is the white list's, not the client's, `status` the answer's. It
    is told before the answer's body goes out."""

    provider: str
    route: str
    method: str
    actor: str
    status: int
    id: str = ""


class RequestRejected(Struct, frozen=True):
    """A request that the bridge answered itself, before anything of it was recorded."""

    id: str
    provider: str
    method: str
    path: str
    status: int
    code: str


class RecordsLost(Struct, frozen=True):
    """So many more events could be written nowhere."""

    count: int


Listeners = dict[type, list[Callable[[Any], None]]]


class Hooks:
    """Listeners by the type of what they want to hear. `above` hear all that is told here."""

    def __init__(self, *above: Hooks) -> None:
        self._own: Listeners = defaultdict(list)
        inherited = [kinds for one in above for kinds in one.listeners]
        self.listeners: tuple[Listeners, ...] = (self._own, *inherited)

    def on(self, kind: type[T], listener: Callable[[T], None]) -> None:
        self._own[kind].append(listener)

    def has_listeners(self, kind: type) -> bool:
        for kinds in self.listeners:  # noqa: SIM110 - for each request; `any` takes twice as long
            if kind in kinds:
                return True
        return False

    def emit(self, value: object) -> None:
        kind = type(value)
        for kinds in self.listeners:
            for listener in kinds.get(kind, ()):
                try:
                    listener(value)
                except Exception:  # noqa: BLE001 - told just below
                    _log.exception("a listener failed at %s", kind.__name__)
