"""A clock that tests set, in place of the one that keys and breakers read."""

from __future__ import annotations

import time

import pytest

MODULES = ("keys", "breaker", "shared_state")


class Clock:
    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = time.time()
        for name in MODULES:
            patch.setattr(f"aibridge_flask.upstream.{name}.time", lambda: self.now)

    def advance(self, seconds: float) -> None:
        self.now += seconds
