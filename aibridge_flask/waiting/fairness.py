"""A request that never has to wait would hold the hub: it waits of its own accord."""

from __future__ import annotations

from .runtime import under_gevent

_MOMENT = 1e-6  # seconds; a sleep of 0 does not look at sockets that have become ready


def let_others_run() -> None:
    """Under gevent other requests run first, those too whose sockets are ready only now."""
    if under_gevent():
        from gevent import sleep

        sleep(_MOMENT)
