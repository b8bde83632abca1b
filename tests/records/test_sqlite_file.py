"""SQLite's file may be replaced, deleted or restored from a backup."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aibridge_flask.records.events import Ended, now
from aibridge_flask.records.recorder import Recorder
from tests.support.records import is_applied, rows, settings, started, statuses
from tests.support.server import wait_until

Start = Callable[[], Recorder]


@pytest.fixture
def start(database_url: str, tmp_path: Path) -> Iterator[Start]:
    recorders: list[Recorder] = []

    def start() -> Recorder:
        recorders.append(Recorder(settings(database_url, spool_dir=str(tmp_path / "spool"))))
        recorders[-1].start()
        return recorders[-1]

    yield start
    for recorder in recorders:
        recorder.close()


def test_a_database_that_went_back_in_time_is_brought_forward(
    start: Start, database_url: str, tmp_path: Path
) -> None:
    recorder = start()
    recorder.begin(started("first"))
    wait_until(lambda: is_applied(recorder))
    backup = tmp_path / "backup.db"
    with (
        contextlib.closing(sqlite3.connect(tmp_path / "records.db")) as source,
        contextlib.closing(sqlite3.connect(backup)) as copy,
    ):
        source.backup(copy)
    for number in range(20):
        recorder.begin(started(f"later {number}"))
        recorder.end(Ended(f"later {number}", now(), status_code=200))
    recorder.end(Ended("first", now(), status_code=200))
    wait_until(lambda: len(statuses(database_url)) == 21)
    recorder.close()
    for leftover in tmp_path.glob("records.db*"):
        if leftover.is_file():
            leftover.unlink()
    shutil.copy(backup, tmp_path / "records.db")
    assert statuses(database_url) == {"first": None}
    start()
    wait_until(lambda: list(statuses(database_url).values()) == [200] * 21)


def test_a_replaced_sqlite_file_gets_the_records_from_then_on(
    start: Start, database_url: str, tmp_path: Path
) -> None:
    recorder = start()
    recorder.begin(started("before"))
    wait_until(lambda: is_applied(recorder))
    for leftover in tmp_path.glob("records.db*"):
        if leftover.is_file():
            leftover.unlink()
    recorder.begin(started("after"))
    wait_until(
        lambda: (tmp_path / "records.db").exists() and "after" in {row["id"] for row in rows(database_url)}
    )
    recorder.end(Ended("before", now(), status_code=200), Ended("after", now(), status_code=200))
    wait_until(lambda: statuses(database_url) == {"before": 200, "after": 200})
