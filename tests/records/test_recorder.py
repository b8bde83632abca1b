"""Records go to the log first, and reach the database in their order, whatever it does."""

from __future__ import annotations

import errno
import itertools
import json
import os
import resource
import shutil
import threading
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from time import monotonic

import pytest
import sqlalchemy as sa

from aibridge_flask.errors import ConfigError, RecordingFailed
from aibridge_flask.hooks import Hooks, RecordsLost, RecordsRejected, RecordsUnconfirmed
from aibridge_flask.model import Usage, new_id
from aibridge_flask.records import database as databases
from aibridge_flask.records import log_folder, tables
from aibridge_flask.records.events import (
    Ended,
    ModelThought,
    Prompt,
    PromptAnswered,
    TokenUsage,
    ToolUsage,
    now,
)
from aibridge_flask.records.log import RecordLog
from aibridge_flask.records.recorder import Recorder
from aibridge_flask.waiting import one_shot_event
from tests.conftest import BOTH_DATABASES
from tests.support.records import is_applied, killed_worker, locked, rows, settings, started, statuses
from tests.support.server import wait_until

pytestmark = BOTH_DATABASES
MAGIC = b"\xa1\xb2BR"  # of a log's frames
Make = Callable[..., Recorder]


@pytest.fixture
def url(database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    monkeypatch.setenv("AIBRIDGE_SPOOL_DIR", str(tmp_path / "spool"))
    return database_url


@pytest.fixture
def hooks() -> Hooks:
    return Hooks()


@pytest.fixture
def make(url: str, hooks: Hooks) -> Iterator[Make]:
    recorders: list[Recorder] = []

    def make(**records: object) -> Recorder:
        recorders.append(Recorder(settings(url, records=records), hooks))
        recorders[-1].start()
        return recorders[-1]

    yield make
    for recorder in recorders:
        recorder.close()


@pytest.fixture
def recorder(make: Make) -> Recorder:
    return make()


def ended(id: str, **members: object) -> Ended:
    return Ended(id, now(), status_code=200, **members)  # type: ignore[arg-type]


def test_records_reach_the_database_in_their_order(recorder: Recorder, url: str) -> None:
    id = new_id()
    recorder.begin(started(id, model="m"), Prompt(id, "hi", now()))
    for output in (1, 5, 9):
        recorder.record(TokenUsage(id, 0, "resp", "m", Usage(3, output), now()))
    recorder.end(ended(id))
    wait_until(lambda: is_applied(recorder))
    assert [row["output_tokens"] for row in rows(url, tables.token_usages)] == [9]
    (row,) = rows(url)
    assert (row["model"], row["status_code"]) == ("m", 200)


def test_recording_waits_for_no_database(recorder: Recorder, url: str) -> None:
    ids = [new_id() for _ in range(50)]
    recorder.begin(started(ids[0]))
    wait_until(lambda: is_applied(recorder))
    with locked(url):
        begun = monotonic()
        for id in ids[1:]:
            recorder.begin(started(id))
            recorder.end(ended(id))
        recorder.end(ended(ids[0]))
        assert monotonic() - begun < 1
        assert recorder.healthy
        assert recorder.backlog().events == 99
        assert statuses(url) == {ids[0]: None}
    wait_until(lambda: statuses(url) == dict.fromkeys(ids, 200))
    wait_until(lambda: is_applied(recorder))


def test_events_may_be_applied_repeatedly(recorder: Recorder, url: str) -> None:
    id = new_id()
    events = (
        started(id),
        Prompt(id, "hi", now()),
        TokenUsage(id, 0, "r", "m", Usage(3, 4), now()),
        ToolUsage(id, 0, 0, "r", "call", "", "Read", "{}", now()),
        ModelThought(id, 0, 0, "hm", "thinking", now()),
        ended(id),
    )
    recorder.begin(*events)
    wait_until(lambda: is_applied(recorder))
    first = [rows(url, table) for table in (tables.interceptions, tables.tool_usages, tables.model_thoughts)]
    recorder.begin(*events)
    wait_until(lambda: is_applied(recorder))
    assert [
        rows(url, table) for table in (tables.interceptions, tables.tool_usages, tables.model_thoughts)
    ] == first


@pytest.mark.parametrize("cut", range(1, 5))
def test_the_parts_of_an_interception_may_come_in_any_slices(recorder: Recorder, url: str, cut: int) -> None:
    """A part that was applied before the worker was killed is applied again with the rest."""
    id = new_id()
    events = (
        started(id),
        Prompt(id, "hi", now()),
        PromptAnswered(id, "resp"),
        ended(id, error_type="timeout", response_sha256="aa"),
    )
    for part in (events[:cut], events):
        recorder.begin(*part)
        wait_until(lambda: is_applied(recorder))
    (row,), (prompt,) = rows(url), rows(url, tables.user_prompts)
    assert (row["status_code"], row["error_type"], row["response_sha256"]) == (200, "timeout", "aa")
    assert (prompt["prompt"], prompt["provider_response_id"]) == ("hi", "resp")


def test_many_threads_share_a_log(recorder: Recorder, url: str) -> None:
    def interceptions() -> None:
        for _ in range(50):
            id = new_id()
            recorder.begin(started(id))
            recorder.end(ended(id))

    threads = [threading.Thread(target=interceptions) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: list(statuses(url).values()) == [200] * 400)


def test_a_closed_recorder_has_applied_all_and_left_nothing_open(recorder: Recorder, url: str) -> None:
    ids = [new_id() for _ in range(300)]
    for id in ids:
        recorder.begin(started(id))
    recorder.end(ended(ids[0]))
    recorder.close()
    found = rows(url)
    assert {row["id"] for row in found} == set(ids)
    assert all(row["ended_at"] for row in found)
    assert [row["error_type"] for row in found].count("interrupted") == 299


def test_what_a_closed_recorder_could_not_apply_is_applied_by_the_next(make: Make, url: str) -> None:
    first, id = make(), new_id()
    first.begin(started(id))
    wait_until(lambda: is_applied(first))
    with locked(url), pytest.MonkeyPatch.context() as patch:
        patch.setattr("aibridge_flask.records.recorder._CLOSE_SECONDS", 0.3)
        first.end(ended(id))
        first.close()
    make()
    wait_until(lambda: statuses(url) == {id: 200})


def test_a_row_that_the_database_rejects_is_set_aside_alone(
    recorder: Recorder, hooks: Hooks, url: str, tmp_path: Path
) -> None:
    counts: list[int] = []
    hooks.on(RecordsRejected, lambda event: counts.append(event.count))
    ids = [new_id() for _ in range(3)]
    recorder.begin(started(ids[0]))
    recorder.record(TokenUsage("nobody", 0, "r", "m", Usage(), now()))  # belongs to no interception
    recorder.record(started(ids[1]), ToolUsage("nobody", 0, 0, "r", "c", "", "t", "", now()), ended(ids[1]))
    recorder.begin(started(ids[2]))
    wait_until(lambda: is_applied(recorder))
    assert statuses(url) == {ids[0]: None, ids[1]: 200, ids[2]: None}
    lines = [
        json.loads(line)
        for file in (tmp_path / "spool" / "rejected").iterdir()
        for line in file.read_text().splitlines()
    ]
    assert [(line["event"], line["interception_id"]) for line in lines] == [
        ("TokenUsage", "nobody"),
        ("ToolUsage", "nobody"),
    ]
    recorder.close()
    assert sum(counts) == 2


def test_a_missing_table_is_waited_out(recorder: Recorder, hooks: Hooks, url: str) -> None:
    lost: list[object] = []
    hooks.on(RecordsRejected, lost.append)
    hooks.on(RecordsLost, lost.append)
    id = new_id()
    recorder.begin(started(id))
    wait_until(lambda: is_applied(recorder))
    engine = databases.connect(url)
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE token_usages RENAME TO gone"))
    recorder.record(TokenUsage(id, 0, "r", "m", Usage(3, 4), now()))
    recorder.end(ended(id))
    wait_until(lambda: not recorder._running[0].applier.is_up)
    assert recorder.healthy
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE gone RENAME TO token_usages"))
    wait_until(lambda: statuses(url) == {id: 200})
    assert [row["output_tokens"] for row in rows(url, tables.token_usages)] == [4]
    recorder.close()
    assert lost == []


def test_a_full_disk_refuses_new_interceptions_and_loses_no_end(recorder: Recorder, url: str) -> None:
    ids = [new_id() for _ in range(2)]
    recorder.begin(started(ids[0]))
    wait_until(lambda: is_applied(recorder))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, limits[1]))
    try:
        recorder.record(TokenUsage(ids[0], 0, "r", "m", Usage(3, 1), now()))
        recorder.record(TokenUsage(ids[0], 0, "r", "m", Usage(3, 9), now()))
        with pytest.raises(RecordingFailed):
            recorder.begin(started(ids[1]))
        recorder.end(ended(ids[0]))
        assert not recorder.healthy
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    wait_until(lambda: statuses(url) == {ids[0]: 200})
    wait_until(lambda: recorder.healthy)
    assert [row["output_tokens"] for row in rows(url, tables.token_usages)] == [9]


def let_appends_fail(patch: pytest.MonkeyPatch, attempts: float = inf) -> None:
    """The disk has no room for so many attempts to append to a log."""
    real, failures = os.write, iter(itertools.count())

    def write(file: int, data: bytes) -> int:
        if data.startswith(MAGIC) and next(failures) < attempts:
            raise OSError(errno.ENOSPC, "no space left")
        return real(file, data)

    patch.setattr(os, "write", write)


def test_a_worker_that_stops_while_the_disk_is_full_gives_the_end_to_the_database(
    recorder: Recorder, url: str, hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[RecordsLost] = []
    hooks.on(RecordsLost, lost.append)
    id = new_id()
    recorder.begin(started(id, model="m"))
    with monkeypatch.context() as patch:
        let_appends_fail(patch)
        recorder.record(TokenUsage(id, 0, "r", "m", Usage(3, 9), now()))
        recorder.end(ended(id))
        recorder.close()
    assert statuses(url) == {id: 200}
    assert [row["output_tokens"] for row in rows(url, tables.token_usages)] == [9]
    assert lost == []


def test_a_worker_that_stops_without_a_database_waits_for_the_disk(
    make: Make, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, id, engine = make(), new_id(), databases.connect(url)
    recorder.begin(started(id, model="m"))
    wait_until(lambda: is_applied(recorder))
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(sa.text("ALTER TABLE token_usages RENAME TO gone"))
    with monkeypatch.context() as patch:
        let_appends_fail(patch, attempts=5)
        recorder.end(TokenUsage(id, 0, "r", "m", Usage(3, 9), now()), ended(id))
        recorder.close()
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(sa.text("ALTER TABLE gone RENAME TO token_usages"))
    assert statuses(url) == {id: None}
    make()
    wait_until(lambda: statuses(url) == {id: 200})


def test_an_end_that_comes_while_the_worker_stops_follows_its_start(
    make: Make, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aibridge_flask.records.applier._FINISH_SECONDS", 0.5)
    monkeypatch.setattr("aibridge_flask.records.store._CALL_SECONDS", 0.5)
    recorder, id = make(), new_id()
    with locked(url):
        recorder.begin(started(id))
        stop = threading.Thread(target=recorder.close)
        stop.start()
        recorder.end(ended(id))
        stop.join()
    make()
    wait_until(lambda: statuses(url) == {id: 200})


def test_a_log_that_somebody_removes_is_made_anew(
    recorder: Recorder, url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = new_id(), new_id()
    recorder.begin(started(first))
    wait_until(lambda: is_applied(recorder))
    shutil.rmtree(tmp_path / "spool")
    wait_until(lambda: "the log's folder was removed" in caplog.text)
    with locked(url):
        recorder.begin(started(second))
        assert [path.stat().st_size > 0 for path in (tmp_path / "spool").rglob("*.log")] == [True]
    recorder.end(ended(first))
    recorder.end(ended(second))
    wait_until(lambda: statuses(url) == {first: 200, second: 200})


def test_refuse_mode_refuses_once_the_database_is_behind(make: Make, url: str) -> None:
    recorder = make(on_database_down="refuse")
    ids = [new_id() for _ in range(2)]
    recorder.begin(started(ids[0]))
    wait_until(lambda: is_applied(recorder))
    with locked(url):
        recorder.end(ended(ids[0]))
        wait_until(lambda: not recorder.healthy)
        with pytest.raises(RecordingFailed):
            recorder.begin(started(ids[1]))
    wait_until(lambda: recorder.healthy)
    recorder.begin(started(ids[1]))
    wait_until(lambda: statuses(url) == {ids[0]: 200, ids[1]: None})


def test_database_durability_waits_for_the_commit(make: Make, url: str) -> None:
    recorder, id = make(durability="database"), new_id()
    recorder.begin(started(id))
    assert statuses(url) == {id: None}
    recorder.end(ended(id))
    assert statuses(url) == {id: 200}


def test_database_durability_goes_on_after_a_while_and_counts_it(
    make: Make, hooks: Hooks, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unconfirmed: list[int] = []
    hooks.on(RecordsUnconfirmed, lambda event: unconfirmed.append(event.count))
    recorder, id = make(durability="database"), new_id()
    recorder.begin(started(id))  # which waits for the first connection
    monkeypatch.setattr("aibridge_flask.records.recorder._COMMIT_SECONDS", 0.2)
    with locked(url):
        recorder.end(ended(id))
    wait_until(lambda: statuses(url) == {id: 200})
    recorder.close()
    assert sum(unconfirmed) == 1


def test_the_logs_folder_belongs_to_its_owner_alone(recorder: Recorder, tmp_path: Path) -> None:
    recorder.begin(started(new_id()))
    folder = tmp_path / "spool"
    modes = {path.stat().st_mode & 0o077 for path in folder.rglob("*.log")}
    assert (folder.stat().st_mode & 0o777, modes) == (0o700, {0})


def test_a_folder_that_cannot_be_used_is_named(url: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="spool_dir"):
        log_folder.prepare(str(tmp_path / "file"), sa.make_url("sqlite:///x"))


def test_the_folders_place(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    postgresql = sa.make_url("postgresql+psycopg://h/d")
    assert log_folder.prepare("", sa.make_url("sqlite:///r.db")) == tmp_path / "r.db-spool"
    assert log_folder.prepare("", postgresql) == tmp_path / "aibridge-spool"
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path}/state:{tmp_path}/other")
    assert log_folder.prepare("", postgresql) == tmp_path / "state"


def test_making_a_recorder_does_no_io(url: str, tmp_path: Path) -> None:
    Recorder(settings("sqlite:////nowhere/at/all.db", spool_dir=f"{tmp_path}/log"))
    assert not (tmp_path / "log").exists()


def test_closing_waits_while_the_database_is_locked(recorder: Recorder, url: str) -> None:
    ids = [new_id() for _ in range(2)]
    for id in ids:
        recorder.begin(started(id))
    wait_until(lambda: is_applied(recorder))
    closing = threading.Thread(target=recorder.close)
    with locked(url):
        recorder.end(ended(ids[0]))
        closing.start()
        closing.join(0.5)
        assert closing.is_alive()
    closing.join(20)
    assert {row["id"]: row["error_type"] for row in rows(url)} == {ids[0]: "", ids[1]: "interrupted"}


def test_who_waits_for_what_is_applied_already_waits_no_longer(recorder: Recorder) -> None:
    recorder.begin(started(new_id()))
    wait_until(lambda: is_applied(recorder))
    (part,) = recorder._running
    applied = one_shot_event()
    part.applier.wait_for(part.log.end, applied)
    assert applied.wait(3.0)


def test_under_steady_load_dead_workers_are_closed_and_nothing_is_refused(
    make: Make, url: str, tmp_path: Path
) -> None:
    tree = {"database_url": url, "spool_dir": str(tmp_path / "spool")}
    with locked(url):
        killed_worker(tree, started("begun"))
    recorder, stop, refused = make(on_database_down="refuse"), threading.Event(), []

    def load() -> None:
        (part,) = recorder._running
        while not stop.is_set():
            try:
                recorder.begin(started(new_id()))
            except RecordingFailed:
                refused.append(True)
            while part.log.end - part.applier.position > 20_000:
                stop.wait(0.001)

    thread = threading.Thread(target=load)
    wait_until(lambda: recorder._running[0].applier.has_tried)
    thread.start()
    wait_until(lambda: {row["error_type"] for row in rows(url) if row["id"] == "begun"} == {"interrupted"})
    stop.set()
    thread.join()
    assert refused == []


def test_logs_of_another_database_are_no_backlog(recorder: Recorder, tmp_path: Path) -> None:
    other = RecordLog(tmp_path / "spool", new_id())
    log_folder.set_database(other.path, "another-database")
    other.append((started(new_id()),))
    recorder.begin(started(new_id()))
    wait_until(lambda: is_applied(recorder))
    other.close()
