"""How long the fuzzer looks: always at the same examples for a minute, or at new ones for longer."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

MINUTES = "FUZZ_MINUTES"


def is_long() -> bool:
    return bool(os.environ.get(MINUTES))


def examples(count: int) -> settings:
    """Decorates a test with `count` examples, of which all tests together need a minute.

    With FUZZ_MINUTES=60 there are sixty times as many, and others each time. A failure is kept in
    `.hypothesis/` and tried first the next time.
    """
    minutes = os.environ.get(MINUTES, "")
    return settings(
        max_examples=count * int(minutes or 1),
        derandomize=not minutes,
        database=settings.default.database if minutes else None,
        deadline=None,
        phases=set(Phase) - {Phase.explain},
        suppress_health_check=list(HealthCheck),
        print_blob=bool(minutes),
    )
