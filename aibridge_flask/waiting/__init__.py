"""Waiting: for an upstream's bytes or a client that leaves, for another thread, for a slow call.

The only part that names gevent. Each thing stands here twice, for gevent and for threads; which of
the two holds is told by whether the sockets of this process are gevent's.
"""

from .client import UNWATCHED, Client, readiness_probe, watch
from .runtime import under_gevent
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
    "UNWATCHED",
    "Client",
    "OneShotEvent",
    "ReplaceableClient",
    "TaskGroup",
    "after_fork",
    "call_from_thread",
    "call_soon",
    "fork_lock",
    "one_shot_event",
    "readiness_probe",
    "run_in_pool",
    "set_events",
    "start_thread",
    "under_gevent",
    "watch",
]
