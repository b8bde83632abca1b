"""What a dead worker left is applied and closed by another; nobody's records harm anybody."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from aibridge_flask.hooks import Hooks, RecordsLost
from aibridge_flask.model import new_id
from aibridge_flask.records import database as databases
from aibridge_flask.records import log_folder, log_reader, tables
from aibridge_flask.records.events import Ended, now
from aibridge_flask.records.recorder import Recorder
from tests.conftest import BOTH_DATABASES
from tests.support.records import killed_worker, locked, rows, settings, started
from tests.support.server import wait_until

pytestmark = BOTH_DATABASES
BEGUN = """
recorder.begin(Started("begun", "ann", now()))
recorder.begin(Started("over", "ann", now()))
recorder.record(TokenUsage("begun", 0, "r", "m", Usage(3, 4), now()))
recorder.end(Ended("over", now(), status_code=200))
"""


@pytest.fixture
def tree(database_url: str, tmp_path: Path) -> dict[str, object]:
    return {"database_url": database_url, "spool_dir": str(tmp_path / "spool")}


@pytest.fixture
def hooks() -> Hooks:
    return Hooks()


@pytest.fixture
def start(tree: dict[str, object], hooks: Hooks) -> Iterator[Callable[[], Recorder]]:
    recorders: list[Recorder] = []

    def start() -> Recorder:
        recorders.append(Recorder(settings(str(tree["database_url"]), spool_dir=tree["spool_dir"]), hooks))
        recorders[-1].start()
        return recorders[-1]

    yield start
    for recorder in recorders:
        recorder.close()


Start = Callable[[], Recorder]


def ends(url: str) -> dict[str, str]:
    """How the interceptions ended; `open` if they did not."""
    return {row["id"]: row["error_type"] if row["ended_at"] else "open" for row in rows(url)}


def test_a_killed_workers_log_is_applied_and_its_interceptions_are_closed(
    tree: dict[str, object], start: Start, database_url: str
) -> None:
    with locked(database_url):
        killed_worker(tree, BEGUN)
    start()
    wait_until(lambda: ends(database_url) == {"begun": "interrupted", "over": ""})
    assert [row["output_tokens"] for row in rows(database_url, tables.token_usages)] == [4]


def test_a_real_end_takes_the_place_of_an_interruption(
    tree: dict[str, object], start: Start, database_url: str
) -> None:
    killed_worker(tree, BEGUN)
    recorder = start()
    wait_until(lambda: ends(database_url).get("begun") == "interrupted")
    recorder.record(Ended("begun", now(), status_code=200))
    wait_until(lambda: ends(database_url)["begun"] == "")


@pytest.mark.parametrize("harm", ["flip", "cut", "junk", "empty", "folder", "unreadable"])
def test_a_damaged_log_costs_itself_only(
    tree: dict[str, object], start: Start, database_url: str, tmp_path: Path, harm: str
) -> None:
    with locked(database_url):
        killed_worker(tree, 'recorder.begin(Started("bad", "ann", now()))')
        (bad,) = log_folder.logs(tmp_path / "spool")
        killed_worker(tree, 'recorder.begin(Started("good", "ann", now()))')
    (segment,) = bad.glob("*.log")
    data = bytearray(segment.read_bytes())
    if harm == "flip":
        data[len(data) // 2] ^= 1
        segment.write_bytes(data)
    elif harm == "cut":
        segment.write_bytes(data[:-5])
    elif harm == "junk":
        segment.write_bytes(os.urandom(100_000))
    elif harm == "empty":
        segment.write_bytes(b"")
    elif harm == "folder":
        segment.unlink()
        segment.mkdir()
    else:
        segment.unlink()
        segment.symlink_to("/nowhere")
    start()
    wait_until(lambda: ends(database_url) == {"good": "interrupted"})


def test_damage_is_counted(
    tree: dict[str, object], start: Start, hooks: Hooks, database_url: str, tmp_path: Path
) -> None:
    lost: list[int] = []
    hooks.on(RecordsLost, lambda event: lost.append(event.count))
    with locked(database_url):
        killed_worker(tree, BEGUN)
    (log,) = log_folder.logs(tmp_path / "spool")
    (segment,) = log.glob("*.log")
    data = bytearray(segment.read_bytes())
    data[60] ^= 1
    segment.write_bytes(data)
    recorder = start()
    wait_until(lambda: "over" in ends(database_url))
    recorder.close()
    assert lost == [1]


def test_logs_of_another_database_are_left_alone(
    tree: dict[str, object], start: Start, database_url: str, tmp_path: Path
) -> None:
    with locked(database_url):
        killed_worker(tree, BEGUN)
    (log,) = log_folder.logs(tmp_path / "spool")
    log_folder.set_database(log, "another-database")
    recorder = start()
    recorder.begin(started("mine"))
    wait_until(lambda: is_applied_but(recorder, log))
    assert ends(database_url) == {"mine": "open"}
    assert log_reader.end_of(log) > 0


def is_applied_but(recorder: Recorder, log: Path) -> bool:
    return recorder.backlog().bytes == log_reader.end_of(log) and bool(recorder._running[0].applier.position)


LINES = [
    ["Started", {"id": "old", "initiator_id": "ann", "started_at": "2026-01-01T00:00:00Z"}],
    ["Answered", {"interception_id": "old", "provider_response_id": "r"}],
    ["Ended", {"id": "old", "ended_at": "2026-01-01T00:00:01Z", "status_code": 200}],
]


def test_spools_of_the_version_before_are_applied(
    start: Start, hooks: Hooks, database_url: str, tmp_path: Path
) -> None:
    lost: list[int] = []
    hooks.on(RecordsLost, lambda event: lost.append(event.count))
    folder = tmp_path / "spool"
    folder.mkdir()
    id, orphan = new_id(), new_id()
    lines = [json.dumps(line).encode() for line in LINES]
    (folder / f"{id}.lock").touch()
    (folder / f"{id}.spool").write_bytes(b"\n".join([b"", lines[0], b"junk", lines[1], lines[2], b'["cut']))
    (folder / f"{orphan}.spool").write_bytes(lines[0].replace(b'"old"', b'"without lock"') + b"\n")
    recorder = start()
    wait_until(lambda: ends(database_url) == {"old": "", "without lock": "interrupted"})
    wait_until(lambda: list(folder.glob("*.spool")) == list(folder.glob("*.lock")) == [])
    recorder.close()
    assert lost == [1]


def test_workers_of_other_hosts_expire_by_their_rows(
    start: Start, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the database's clock, and only after a time of renewals of one's own."""
    engine = databases.connect(database_url)
    past = "2026-01-01 00:00:00.000000"
    future = "2126-01-01 00:00:00.000000"
    with engine.begin() as connection:
        for worker, seen_at in (("dead", past), ("alive", future)):
            connection.execute(
                sa.text(
                    f"INSERT INTO workers (id, host, seen_at) VALUES ('{worker}', 'far away', '{seen_at}')"
                )
            )
            connection.execute(
                sa.insert(tables.interceptions).values(
                    id=worker, metadata={}, streaming=False, started_at=now(), worker_id=worker
                )
            )
    recorder = start()
    wait_until(lambda: {row["id"] for row in rows(database_url, tables.workers)} > {"dead", "alive"})
    assert ends(database_url) == {"dead": "open", "alive": "open"}
    recorder.close()
    monkeypatch.setattr("aibridge_flask.records.takeover._UNBROKEN_SECONDS", 0.0)
    start()
    wait_until(lambda: ends(database_url) == {"dead": "interrupted", "alive": "open"})


def test_old_segments_are_deleted_and_empty_logs_with_their_rows(
    tree: dict[str, object], start: Start, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_worker(tree, BEGUN)
    (log,) = log_folder.logs(tmp_path / "spool")
    monkeypatch.setattr("aibridge_flask.records.takeover._KEEP_SECONDS", -1.0)
    monkeypatch.setattr("aibridge_flask.records.takeover._ROUND_SECONDS", 0.01)
    recorder = start()
    wait_until(lambda: not log.exists())
    wait_until(
        lambda: [row["id"] for row in rows(database_url, tables.logs)] == [recorder._running[0].log.id]
    )
