"""Fills a database with a made-up history: how fast records are written, and how large they are.

`python -m benchmarks.history --url sqlite:////tmp/million.db [--count 1000000] [--people 200] [--days 180]`
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from aibridge_flask import config
from aibridge_flask.cli.demo.history import History
from aibridge_flask.cli.demo.people import crowd
from aibridge_flask.pricing import PriceList
from aibridge_flask.records import additions, database
from aibridge_flask.records.events import Event
from aibridge_flask.records.store import Store

_SLICE = 200  # interceptions in a transaction
_LOG = "benchmark"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--days", type=int, default=180)
    options = parser.parse_args()
    print(fill(options.url, options.count, options.people, options.days))


def fill(url: str, count: int, people: int, days: int) -> str:
    """Writes the history until now; returns what was measured, as text."""
    engine = database.connect(url)
    database.migrate(engine)
    additions.create_indexes(engine)
    store = Store(engine, PriceList(config.load({})))
    store.open()
    position, written = store.position(_LOG), 0
    began, cpu = time.monotonic(), time.process_time()
    writing = 0.0
    for events, number in _slices(count, people, days):
        started = time.monotonic()
        store.apply(_LOG, events, position, position + number)
        writing += time.monotonic() - started
        position, written = position + number, written + number
    store.close()
    return (
        f"{written} interceptions in {time.monotonic() - began:.0f} s, {written / writing:.0f} a second of"
        f" writing, {1e6 * (time.process_time() - cpu) / written:.0f} us of CPU each with what makes them up,"
        f" {_bytes(engine) / written:.0f} bytes each"
    )


def _slices(count: int, people: int, days: int) -> Iterator[tuple[list[Event], int]]:
    start = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days)
    for exchanges in History(1, crowd(people)).days(start, days, count):
        for first in range(0, len(exchanges), _SLICE):
            part = exchanges[first : first + _SLICE]
            yield [event for exchange in part for event in exchange.events], len(part)


def _bytes(engine: Any) -> int:
    if engine.dialect.name == "sqlite":
        return Path(engine.url.database).stat().st_size
    with engine.connect() as connection:
        return int(connection.scalar(sa.text("SELECT pg_database_size(current_database())")))


if __name__ == "__main__":
    main()
