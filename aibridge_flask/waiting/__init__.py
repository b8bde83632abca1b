"""Waiting for sockets, threads and slow calls, under gevent and under threads.

The only package that imports gevent. Everything has two implementations; the one for gevent is used if the
process is monkey-patched.
"""

from .client import UNWATCHED, WOULD_BLOCK, CancellableClient, Client, watch
from .fairness import let_others_run
from .pause import pause
from .periodic import Periodic
from .pools import FILES, OBJECTS, PARSERS, READERS, TOKENS, Pool, run_if_large
from .probes import readiness_probe
from .runtime import under_gevent, unpatched
from .stalled import StalledClients
from .task_group import ReplaceableClient, TaskGroup
from .threads import (
    OneShotEvent,
    after_fork,
    call_from_thread,
    call_soon,
    fork_lock,
    one_shot_event,
    run_in_pool,
    set_events,
    start_thread,
)

__all__ = [
    "FILES",
    "OBJECTS",
    "PARSERS",
    "READERS",
    "TOKENS",
    "UNWATCHED",
    "WOULD_BLOCK",
    "CancellableClient",
    "Client",
    "OneShotEvent",
    "Periodic",
    "Pool",
    "ReplaceableClient",
    "StalledClients",
    "TaskGroup",
    "after_fork",
    "call_from_thread",
    "call_soon",
    "fork_lock",
    "let_others_run",
    "one_shot_event",
    "pause",
    "readiness_probe",
    "run_if_large",
    "run_in_pool",
    "set_events",
    "start_thread",
    "under_gevent",
    "unpatched",
    "watch",
]
