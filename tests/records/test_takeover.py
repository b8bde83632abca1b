"""What a dead worker left is applied and closed by another; nobody's records harm anybody."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from aibridge_flask import config
from aibridge_flask.hooks import Hooks, RecordsLost
from aibridge_flask.model import Usage, new_id
from aibridge_flask.pricing import PriceList
from aibridge_flask.records import backlog, legacy_spool, log_folder, log_reader, tables
from aibridge_flask.records import database as databases
from aibridge_flask.records.backlog import Backlog
from aibridge_flask.records.counters import Counters
from aibridge_flask.records.events import Ended, Event, TokenUsage, now
from aibridge_flask.records.log import RecordLog
from aibridge_flask.records.recorder import Recorder
from aibridge_flask.records.rejects import Rejects
from aibridge_flask.records.store import DatabaseDown, Store
from aibridge_flask.records.takeover import Takeover
from tests.conftest import BOTH_DATABASES
from tests.support.records import killed_worker, locked, rows, settings, started
from tests.support.server import wait_until

pytestmark = BOTH_DATABASES


def begun() -> tuple[Event, ...]:
    """One interception that has ended, and one that has not."""
    usage = TokenUsage("begun", 0, "r", "m", Usage(3, 4), now())
    return started("begun"), started("over"), usage, Ended("over", now(), status_code=200)


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
        prices = {"m": {"input": 2.0, "output": 3.0}}
        own = settings(str(tree["database_url"]), spool_dir=tree["spool_dir"], prices=prices)
        recorders.append(Recorder(own, hooks))
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
        killed_worker(tree, *begun())
    start()
    wait_until(lambda: ends(database_url) == {"begun": "interrupted", "over": ""})
    assert [row["output_tokens"] for row in rows(database_url, tables.token_usages)] == [4]
    costs = {row["id"]: (row["cost_micros"], row["cost_status"]) for row in rows(database_url)}
    assert costs == {"begun": (3 * 2 + 4 * 3, "estimated"), "over": (None, "")}


def test_a_real_end_takes_the_place_of_an_interruption(
    tree: dict[str, object], start: Start, database_url: str
) -> None:
    killed_worker(tree, *begun())
    recorder = start()
    wait_until(lambda: ends(database_url).get("begun") == "interrupted")
    recorder.record(Ended("begun", now(), status_code=200))
    wait_until(lambda: ends(database_url)["begun"] == "")


@pytest.mark.parametrize("harm", ["flip", "cut", "junk", "empty", "folder", "unreadable"])
def test_a_damaged_log_costs_itself_only(
    tree: dict[str, object], start: Start, database_url: str, tmp_path: Path, harm: str
) -> None:
    with locked(database_url):
        killed_worker(tree, started("bad"))
        (bad,) = log_folder.logs(tmp_path / "spool")
        killed_worker(tree, started("good"))
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
        killed_worker(tree, *begun())
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
        killed_worker(tree, *begun())
        (log,) = log_folder.logs(tmp_path / "spool")
        killed_worker(tree, started("later"))
    log_folder.set_database(log, "another-database")
    start()
    wait_until(lambda: ends(database_url) == {"later": "interrupted"})
    assert log_reader.end_of(log) > 0


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
    killed_worker(tree, *begun())
    (log,) = log_folder.logs(tmp_path / "spool")
    monkeypatch.setattr("aibridge_flask.records.takeover._KEEP_SECONDS", -1.0)
    monkeypatch.setattr("aibridge_flask.records.takeover._ROUND_SECONDS", 0.01)
    recorder = start()
    wait_until(lambda: not log.exists())
    wait_until(
        lambda: [row["id"] for row in rows(database_url, tables.logs)] == [recorder._running[0].log.id]
    )


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    engine = databases.connect(database_url)
    databases.migrate(engine)
    store = Store(engine, PriceList(config.load({})))
    store.open()
    yield store
    store.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "spool").mkdir()
    return tmp_path / "spool"


@pytest.fixture
def takeover(store: Store, folder: Path, hooks: Hooks, database_url: str) -> Takeover:
    """Driven by the test's own thread."""
    rejects = Rejects(folder, "own", Counters(hooks))
    return Takeover(store, rejects, folder, "own", str(folder), sa.make_url(database_url))


def a_round(takeover: Takeover) -> int:
    """Does a whole round; returns the number of its slices."""
    takeover._next_round, slices = 0.0, 1
    takeover.advance()
    while takeover.is_running:
        takeover.advance()
        slices += 1
    return slices


def dead_log(folder: Path, *ids: str) -> Path:
    """The log of a dead worker, one frame for each interception."""
    log = RecordLog(folder, new_id())
    for id in ids:
        log.append((started(id),))
    log.close()
    return log.path


def spool_with(folder: Path, *ids: str) -> Path:
    spool = folder / f"{new_id()}.spool"
    lines = [
        ["Started", {"id": id, "initiator_id": "ann", "started_at": "2026-01-01T00:00:00Z"}] for id in ids
    ]
    spool.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return spool


def fail_for(patch: pytest.MonkeyPatch, name: str, path: Path, code: int = errno.EMFILE) -> None:
    """Lets a function of `os` fail for a path."""
    real = getattr(os, name)

    def fail(target: object, *arguments: object, **options: object) -> object:
        if target == path:
            raise OSError(code, os.strerror(code), str(path))
        return real(target, *arguments, **options)

    patch.setattr(os, name, fail)


@pytest.mark.parametrize("name", ["open", "scandir"])
@pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO])
def test_a_log_that_cannot_be_read_now_is_read_later_and_holds_no_other_up(
    takeover: Takeover, folder: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    monkeypatch.setattr("aibridge_flask.records.takeover._KEEP_SECONDS", -1.0)
    log, _ = dead_log(folder, "first"), dead_log(folder, "second")
    (segment,) = log_reader.segments(log)
    with monkeypatch.context() as patch:
        fail_for(patch, name, segment.path if name == "open" else log, code)
        a_round(takeover)
        a_round(takeover)
    assert (ends(database_url), log.exists()) == ({"second": "interrupted"}, True)
    a_round(takeover)
    assert ends(database_url) == {"first": "interrupted", "second": "interrupted"}


@pytest.mark.parametrize("name", ["9" * 25, "9" * 20, "1", "folder"])
def test_an_odd_file_holds_no_other_log_up_and_is_not_deleted(
    takeover: Takeover, folder: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("aibridge_flask.records.takeover._KEEP_SECONDS", -1.0)
    odd, sound = dead_log(folder), dead_log(folder, "sound")
    if name == "folder":
        (odd / f"{0:020d}.log").mkdir()
    else:
        (odd / f"{name}.log").write_bytes(b"x")
    a_round(takeover)
    a_round(takeover)
    assert ends(database_url) == {"sound": "interrupted"}
    assert (odd.exists(), sound.exists()) == (True, False)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_segment_that_cannot_be_deleted_holds_no_other_up_and_is_logged_once(
    takeover: Takeover,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    code: int,
) -> None:
    monkeypatch.setattr("aibridge_flask.records.takeover._KEEP_SECONDS", -1.0)
    stays, goes = dead_log(folder, "first"), dead_log(folder, "second")
    (segment,) = log_reader.segments(stays)
    fail_for(monkeypatch, "unlink", segment.path, code)
    for _ in range(3):
        a_round(takeover)
    assert (stays.exists(), goes.exists()) == (True, False)
    assert [r for r in caplog.messages if os.strerror(code) in r] == [
        f"it cannot be taken over, and is tried again: {segment.path}: {os.strerror(code)}"
    ]


def test_a_log_that_failed_comes_last(
    takeover: Takeover, folder: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails in a log may have closed the connection too."""
    ids = {dead_log(folder, id): id for id in ("one", "other")}
    first, second = sorted(ids)
    (segment,) = log_reader.segments(first)
    real = os.open

    def fail(path: object, *arguments: int, **options: int) -> int:
        if path == segment.path:
            takeover._store.close()
            raise OSError(errno.EIO, "")
        return real(path, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(DatabaseDown):
        a_round(takeover)
    takeover.interrupt()
    takeover._store.open()
    a_round(takeover)
    assert ends(database_url) == {ids[second]: "interrupted"}


def test_a_lock_of_somebody_else_ends_no_round(
    takeover: Takeover, folder: Path, database_url: str, store: Store
) -> None:
    dead_log(folder, "one"), dead_log(folder, "two")
    store.run(impatient)
    with locked(database_url):
        a_round(takeover)
        assert rows(database_url) == []
        assert takeover._next_round < time.monotonic() + 2
    a_round(takeover)
    assert ends(database_url) == {"one": "interrupted", "two": "interrupted"}


def impatient(connection: sa.Connection) -> None:
    """Waits for a lock no longer than a moment from now on."""
    is_sqlite = connection.dialect.name == "sqlite"
    connection.exec_driver_sql("PRAGMA busy_timeout=10" if is_sqlite else "SET lock_timeout = '10ms'")


def test_a_database_that_goes_back_within_a_round_is_brought_forward(
    takeover: Takeover, folder: Path, store: Store, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    log = dead_log(folder, *map(str, range(10)))
    takeover._slice.frames = 4
    takeover.advance()
    assert 0 < len(rows(database_url)) < 10
    store.run(go_back)
    while takeover.is_running:
        takeover.advance()
    a_round(takeover)
    assert ends(database_url) == dict.fromkeys(map(str, range(10)), "interrupted")
    assert log_reader.read_position(log) == log_reader.end_of(log)
    assert "Traceback" not in caplog.text


def go_back(connection: sa.Connection) -> None:
    """What a backup lacks."""
    for table in (tables.interceptions, tables.logs):
        connection.execute(sa.delete(table))


def test_a_log_that_was_applied_is_not_behind_though_its_worker_could_not_note_it(
    takeover: Takeover, folder: Path
) -> None:
    """It was killed between the two, or its disk was full."""
    log = dead_log(folder, "one")
    a_round(takeover)
    log_reader.note_position(log, 0)
    a_round(takeover)
    assert backlog.measure(folder) == Backlog()


def test_the_databases_own_fault_ends_the_round(takeover: Takeover, folder: Path) -> None:
    dead_log(folder, "one")
    takeover._store.close()
    with pytest.raises(DatabaseDown):
        a_round(takeover)


def test_what_was_applied_now_is_kept_for_an_hour_however_old_it_is(
    takeover: Takeover, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dead workers' logs, and that of one who lives, but for its newest segment."""
    monkeypatch.setattr("aibridge_flask.records.log._SEGMENT_BYTES", 1)
    dead, alive = dead_log(folder, "1", "2"), RecordLog(folder, new_id())
    for id in ("3", "4"):
        alive.append((started(id),))
    log_reader.note_position(alive.path, alive.end)
    segments = [segment.path for log in (dead, alive.path) for segment in log_reader.segments(log)]
    age(segments, 7200)
    a_round(takeover)
    a_round(takeover)
    assert [path for path in segments if path.exists()] == segments
    age(segments[:3], 3500)
    a_round(takeover)
    assert [path for path in segments if path.exists()] == segments
    age(segments, 3700)
    a_round(takeover)
    assert [path for path in segments if path.exists()] == segments[3:]
    alive.close()


def age(paths: list[Path], seconds: float) -> None:
    for path in paths:
        os.utime(path, (time.time() - seconds,) * 2)


def test_what_is_not_applied_is_never_deleted(
    takeover: Takeover, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The noted position may be that of a database that went back since."""
    monkeypatch.setattr("aibridge_flask.records.takeover._KEEP_SECONDS", -1.0)
    log = dead_log(folder, "1")
    log_reader.note_position(log, 1 << 40)
    takeover._finished.add(log.name)
    (segment,) = log_reader.segments(log)
    fail_for(monkeypatch, "open", segment.path)
    a_round(takeover)
    assert segment.path.exists()


def test_damage_is_reported_once_however_often_it_is_tried(
    takeover: Takeover, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = dead_log(folder, "1", "2", "3")
    (segment,) = log_reader.segments(log)
    data = bytearray(segment.path.read_bytes())
    data[len(data) // 2] ^= 1
    segment.path.write_bytes(data)
    chunk = log_reader.read(log, 0, 1 << 40)
    takeover._store.close()
    for _ in range(3):
        with pytest.raises(DatabaseDown):
            list(takeover._apply(log, 0, chunk))
    assert caplog.messages == []
    takeover._store.open()
    a_round(takeover)
    a_round(takeover)
    assert [r for r in caplog.messages if "damaged" in r] == [f"damaged places in the log {log.name}: 1"]


def test_damage_that_was_passed_before_an_outage_is_reported_once(
    takeover: Takeover, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = dead_log(folder, *map(str, range(9)))
    (segment,) = log_reader.segments(log)
    data = bytearray(segment.path.read_bytes())
    for frame in (1, 7):
        data[len(data) // 9 * frame + 30] ^= 1
    segment.path.write_bytes(data)
    takeover._slice.frames = 4
    takeover.advance()
    takeover._store.close()
    with pytest.raises(DatabaseDown):
        takeover.advance()
    takeover.interrupt()
    takeover._store.open()
    a_round(takeover)
    assert [r for r in caplog.messages if "damaged" in r] == [f"damaged places in the log {log.name}: 1"] * 2


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO, errno.EACCES])
def test_a_spool_that_cannot_be_read_now_is_read_later_and_holds_no_other_up(
    takeover: Takeover, folder: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    spool, other = spool_with(folder, "first"), spool_with(folder, "second")
    with monkeypatch.context() as patch:
        fail_for(patch, "open", spool, code)
        a_round(takeover)
    assert (ends(database_url), other.exists()) == ({"second": "interrupted"}, False)
    a_round(takeover)
    assert (ends(database_url)["first"], spool.exists()) == ("interrupted", False)


@pytest.mark.parametrize("kind", ["pipe", "folder", "link"])
def test_what_is_no_file_is_no_spool_and_holds_nobody_up(
    takeover: Takeover, folder: Path, tmp_path: Path, database_url: str, kind: str
) -> None:
    odd = folder / "00000000.spool"
    if kind == "pipe":
        os.mkfifo(odd)
    elif kind == "folder":
        odd.mkdir()
    else:
        odd.symlink_to(spool_with(tmp_path, "elsewhere"))
    spool_with(folder, "sound")
    a_round(takeover)
    assert ends(database_url) == {"sound": "interrupted"}
    assert odd.is_symlink() or odd.exists()


def test_a_spool_that_cannot_be_removed_is_not_applied_again(
    takeover: Takeover, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spool = spool_with(folder, "one")
    spool.write_bytes(spool.read_bytes() + b"junk\n")
    with monkeypatch.context() as patch:
        fail_for(patch, "unlink", spool, errno.EROFS)
        a_round(takeover)
        a_round(takeover)
    assert [r.levelno for r in caplog.records if "damaged" in r.message] == [logging.ERROR]
    a_round(takeover)
    assert not spool.exists()


def test_a_large_spool_is_applied_in_slices(
    takeover: Takeover, folder: Path, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    spool_with(folder, *map(str, range(20)))
    monkeypatch.setattr("aibridge_flask.records.takeover._SLICE_SECONDS", 0.0)
    assert a_round(takeover) > 20
    assert len(ends(database_url)) == 20


@pytest.mark.parametrize("owner", ["own", "foreign", "link"])
@pytest.mark.usefixtures("database")
def test_only_an_own_folder_in_the_temporary_folder_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, owner: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    url = sa.make_url("postgresql://ann@host/name")
    name = hashlib.sha256(url.render_as_string().encode()).hexdigest()[:16]
    place = tmp_path / f"aibridge-{os.getuid()}-{name}"
    real = tmp_path / "real" if owner == "link" else place
    real.mkdir()
    if owner == "link":
        place.symlink_to(real)
    spool = spool_with(place, "one")
    if owner == "foreign":
        uid = os.getuid() + 1
        monkeypatch.setattr(os, "getuid", lambda: uid)
        place = place.rename(tmp_path / f"aibridge-{uid}-{name}")
    assert legacy_spool.files(tmp_path / "none", "", url) == ([spool] if owner == "own" else [])
