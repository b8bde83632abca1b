"""The past of the demonstration: a log as a worker leaves it that has died, for the bridge to take over."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from ...model import new_id
from ...records import frames
from ...records.log import segment_name
from .exchange import Exchange
from .history import History
from .people import PEOPLE

_SEED = 9
_MOST, _A_DAY = 5000, 700


def write_log(folder: Path, days: int, now: datetime) -> int:
    """Writes interceptions of so many days, and of today, to a log in `folder`; returns how many."""
    log = folder / new_id()
    log.mkdir(mode=0o700)
    written = 0
    with (log / segment_name(0)).open("xb") as file:
        for exchange in _exchanges(days, now):
            file.write(frames.encode(exchange.events, exchange.ended_at.timestamp()))
            written += 1
    return written


def _exchanges(days: int, now: datetime) -> Iterator[Exchange]:
    start = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days)
    for exchanges in History(_SEED, PEOPLE).days(start, days + 1, min(_MOST, _A_DAY * days)):
        yield from (exchange for exchange in exchanges if exchange.ended_at < now)
