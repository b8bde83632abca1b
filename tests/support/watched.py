"""The standalone application with a watchdog: `GET /held` tells how long a request has held the hub.

For gunicorn's gevent worker only.
"""

from __future__ import annotations

import time

import gevent

from aibridge_flask import create_app

_TICK_SECONDS = 0.001
app = create_app()
_watchdogs: list[gevent.Greenlet] = []
_longest = [0.0]


@app.get("/held")
def held() -> dict[str, float]:
    """Returns the milliseconds of the longest hold since the last call."""
    if not _watchdogs:
        _watchdogs.append(gevent.spawn(_watch))
    longest, _longest[0] = _longest[0], 0.0
    return {"ms": longest * 1000}


def _watch() -> None:
    """A hold takes as long as it takes, and no less time of the processor: neither clock alone tells."""
    clocks = (time.monotonic, time.process_time)
    before = [clock() for clock in clocks]
    while True:
        gevent.sleep(_TICK_SECONDS)
        now = [clock() for clock in clocks]
        _longest[0] = max(_longest[0], min(end - start for start, end in zip(before, now, strict=True)))
        before = now
