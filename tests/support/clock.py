"""A clock that tests set, for the modules that measure cool-downs."""

from __future__ import annotations

import time
from importlib import import_module

import pytest

MODULES = ("keys", "breaker", "shared_state")


class Clock:
    """`now` is the time of day, `elapsed` what the monotonic clock has gone on since the test began."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now, self.elapsed = time.time(), 0.0
        begin = time.monotonic()
        for name in MODULES:
            module = import_module(f"aibridge_flask.upstream.{name}")
            patch.setattr(module, "time", lambda: self.now)
            patch.setattr(module, "monotonic", lambda: begin + self.elapsed, raising=False)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.elapsed += seconds

    def set_back(self, seconds: float) -> None:
        """Sets the time of day back, as an administrator or NTP may."""
        self.now -= seconds
