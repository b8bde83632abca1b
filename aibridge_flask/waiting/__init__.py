"""Waiting for sockets, threads and slow calls, under gevent and under threads.

The only package that imports gevent. Everything has two implementations; the one for gevent is used if the
process is monkey-patched.
"""

from .client import UNWATCHED, WOULD_BLOCK, Client, readiness_probe, watch
from .pause import pause
from .pools import FILES, OBJECTS, READERS, TOKENS, Pool
from .runtime import under_gevent, unpatched
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
    "READERS",
    "TOKENS",
    "UNWATCHED",
    "WOULD_BLOCK",
    "Client",
    "OneShotEvent",
    "Pool",
    "ReplaceableClient",
    "TaskGroup",
    "after_fork",
    "call_from_thread",
    "call_soon",
    "fork_lock",
    "one_shot_event",
    "pause",
    "readiness_probe",
    "run_in_pool",
    "set_events",
    "start_thread",
    "under_gevent",
    "unpatched",
    "watch",
]
