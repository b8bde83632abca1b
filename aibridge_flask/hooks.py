"""Hooks: listeners are typed callables, each called with one frozen value, the event.

No event is created unless it has listeners. An exception of a listener is logged and has no other effect.
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
    """`state` is 0 (closed), 0.5 (half-open) or 1 (open). Not `is_local`: another process changed it."""

    provider: str
    endpoint: str
    model: str
    state: float
    is_local: bool = True


class BreakerRejected(Struct, frozen=True):
    """An open breaker rejected a request."""

    provider: str
    endpoint: str
    model: str


class LimitUsed(Struct, frozen=True):
    """A request was admitted under a limit, of which this share is used; 1.0: all of it."""

    limit: str
    ratio: float


class LimitRefused(Struct, frozen=True):
    """A limit had no room. Only in the mode `enforce` was the request refused."""

    limit: str
    mode: str


class KeyCooledDown(Struct, frozen=True):
    """A key began to cool down. `reason` is `rate_limited` or `unauthorized`."""

    provider: str
    reason: str


class KeyCooling(Struct, frozen=True):
    """A key cools down for a model or all, until `until` (seconds since 1970). `key` is its digest."""

    provider: str
    key: str
    reason: str
    until: float


class KeysTried(Struct, frozen=True):
    """The number of central keys that were tried for one request."""

    provider: str
    count: int


class KeysExhausted(Struct, frozen=True):
    """No central key was available. `outcome` is `rate_limited` or `unauthorized`."""

    provider: str
    outcome: str


class RequestArrived(Struct, frozen=True):
    """A request to one of a provider's routes arrived, with its W3C trace context."""

    id: str
    traceparent: str
    tracestate: str


class ToolCalled(Struct, frozen=True):
    """A tool of an MCP server was called for the interception `id`.

    `began` and `ended` are nanoseconds since 1970. `error` is an error type, or empty.
    """

    id: str
    server: str
    tool: str
    call_id: str
    began: int
    ended: int
    error: str = ""


class PassthroughServed(Struct, frozen=True):
    """A passthrough request has its response, whose body is still to be sent.

    `route` is the entry of the white list, not the client's path.
    """

    provider: str
    route: str
    method: str
    actor: str
    status: int
    id: str = ""


class RequestRejected(Struct, frozen=True):
    """The bridge rejected a request before anything was recorded."""

    id: str
    provider: str
    method: str
    path: str
    status: int
    code: str


class RecordsRejected(Struct, frozen=True):
    """`count` more events were set aside, since the database rejects them."""

    count: int


class RecordsUnconfirmed(Struct, frozen=True):
    """`count` more waits for a commit timed out; the events are in the log."""

    count: int


class InterceptionsUnpriced(Struct, frozen=True):
    """`count` more interceptions have used tokens without a known price."""

    count: int


class InterceptionsExpired(Struct, frozen=True):
    """`count` more interceptions have lost their content, or were deleted, by age."""

    count: int


class RecordsLost(Struct, frozen=True):
    """`count` more events could not be written, neither to the log nor, at the end, to the database."""

    count: int


Listeners = dict[type, list[Callable[[Any], None]]]


class Hooks:
    """Listeners by the type of event. The listeners of `parents` get all events that are emitted here."""

    def __init__(self, *parents: Hooks) -> None:
        self._own: Listeners = defaultdict(list)
        inherited = [by_type for parent in parents for by_type in parent.listeners]
        self.listeners: tuple[Listeners, ...] = (self._own, *inherited)

    def on(self, event_type: type[T], listener: Callable[[T], None]) -> None:
        """Adds a listener for events of exactly this type."""
        self._own[event_type].append(listener)

    def has_listeners(self, event_type: type) -> bool:
        """Whether an event of this type would reach anybody; lets callers skip its creation."""
        for by_type in self.listeners:  # noqa: SIM110 - runs for each request; `any` takes twice as long
            if event_type in by_type:
                return True
        return False

    def emit(self, event: object) -> None:
        """Calls the listeners of the event's type. Never raises."""
        event_type = type(event)
        for by_type in self.listeners:
            for listener in by_type.get(event_type, ()):
                try:
                    listener(event)
                except Exception:  # noqa: BLE001 - logged on the next line
                    _log.exception("a listener failed at %s", event_type.__name__)
