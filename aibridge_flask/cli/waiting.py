"""How commands work beside the traffic."""

from __future__ import annotations

from time import sleep

from sqlalchemy import Engine

from ..records.slices import Slices


def slices(engine: Engine) -> Slices:
    """Returns transactions with pauses, which nothing but a signal ends."""
    return Slices(engine, _wait)


def _wait(seconds: float) -> bool:
    sleep(seconds)
    return False
