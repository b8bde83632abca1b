"""Group commit, the start of a database, and what happens while it is locked."""

from __future__ import annotations

import contextlib
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from aibridge_flask import config
from aibridge_flask.errors import ConfigError, RecordingFailed
from aibridge_flask.model import Usage, new_id
from aibridge_flask.records import database as databases
from aibridge_flask.records import tables
from aibridge_flask.records.events import Ended, Started, TokenUsage, ToolUsage, now
from aibridge_flask.records.recorder import Recorder, spool_folder
from tests.conftest import BOTH_DATABASES
from tests.support.server import ROOT, wait_until

pytestmark = BOTH_DATABASES


@pytest.fixture
def url(database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    monkeypatch.setenv("AIBRIDGE_SPOOL_DIR", str(tmp_path / "spool"))
    return database_url


def make(url: str, **settings: object) -> Recorder:
    recorder = Recorder(config.load({"database_url": url, **settings}))
    recorder.start()
    return recorder


@pytest.fixture
def recorder(url: str) -> Iterator[Recorder]:
    recorder = make(url)
    yield recorder
    recorder.close()


@pytest.fixture
def recorder_that_refuses(url: str) -> Iterator[Recorder]:
    recorder = make(url, records={"on_database_down": "refuse"})
    yield recorder
    recorder.close()


def started(id: str, **more: Any) -> Started:
    return Started(id, "ann", now(), **more)


def rows(recorder: Recorder, table: sa.Table) -> list[sa.RowMapping]:
    with recorder.engine.connect() as connection:
        return list(connection.execute(sa.select(table)).mappings())


def test_what_is_written_is_committed_in_order(recorder: Recorder) -> None:
    id = new_id()
    recorder.write(started(id, model="m"), must_keep=False)
    for output in (1, 5, 9):
        recorder.record(TokenUsage(id, 0, "resp", "m", Usage(3, output), now()))
    recorder.write(Ended(id, now(), status_code=200), must_keep=True)
    assert [row["output_tokens"] for row in rows(recorder, tables.token_usages)] == [9]
    (row,) = rows(recorder, tables.interceptions)
    assert (row["model"], row["status_code"]) == ("m", 200)


def test_telling_twice_changes_nothing(recorder: Recorder) -> None:
    id = new_id()
    told = (
        started(id),
        ToolUsage(id, 0, 0, "r", "call", "", "Read", "{}", now()),
        Ended(id, now(), status_code=200),
    )
    recorder.write(*told, must_keep=True)
    first = [rows(recorder, table) for table in (tables.interceptions, tables.tool_usages)]
    recorder.write(*told, must_keep=True)
    assert [rows(recorder, table) for table in (tables.interceptions, tables.tool_usages)] == first


def test_many_threads_share_the_writer_and_nothing_is_lost(recorder: Recorder) -> None:
    def interceptions() -> None:
        for _ in range(50):
            id = new_id()
            recorder.write(started(id), must_keep=False)
            recorder.write(Ended(id, now(), status_code=200), must_keep=True)

    threads = [threading.Thread(target=interceptions) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row["status_code"] for row in rows(recorder, tables.interceptions)] == [200] * 400


def test_a_closed_recorder_has_written_all(recorder: Recorder) -> None:
    ids = [new_id() for _ in range(300)]
    for id in ids:
        recorder.record(started(id))
    recorder.close()
    assert {row["id"] for row in rows(recorder, tables.interceptions)} == set(ids)


@contextlib.contextmanager
def locked(url: str) -> Iterator[None]:
    """Somebody else writes to the database, and does not end."""
    engine = databases.connect(url)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("LOCK TABLE interceptions IN EXCLUSIVE MODE"))
        yield


def test_a_locked_database_sends_records_through_the_spool(recorder: Recorder, url: str) -> None:
    ids = [new_id() for _ in range(3)]
    recorder.write(started(ids[0]), must_keep=False)
    with locked(url):
        recorder.write(Ended(ids[0], now(), status_code=200), must_keep=True)
        recorder.write(started(ids[1]), must_keep=False)
        recorder.write(
            started(ids[2], model="a\ud800\0b", metadata={"k\ud800": "v\ud800"}),
            ToolUsage(ids[2], 0, 0, "r", "call", "", "Read", "{}", now()),
            must_keep=False,
        )
        assert recorder.healthy
        assert [row["status_code"] for row in rows(recorder, tables.interceptions)] == [None]
    wait_until(lambda: len(rows(recorder, tables.interceptions)) == 3)
    found = {row["id"]: (row["status_code"], row["model"]) for row in rows(recorder, tables.interceptions)}
    assert found == {ids[0]: (200, ""), ids[1]: (None, ""), ids[2]: (None, "a?\ufffdb")}
    assert [row["metadata"] for row in rows(recorder, tables.interceptions) if row["id"] == ids[2]] == [
        {"k?": "v?"}
    ]
    assert len(rows(recorder, tables.tool_usages)) == 1


def test_threads_are_found_in_the_spool_too(recorder: Recorder, url: str) -> None:
    ids = [new_id() for _ in range(3)]
    with locked(url):
        for number, id in enumerate(ids):
            recorder.write(started(id, correlating_tool_call_id=f"call_{number - 1}"), must_keep=False)
            recorder.write(ToolUsage(id, 0, 0, "r", f"call_{number}", "", "Read", "", now()), must_keep=True)
    wait_until(lambda: len(rows(recorder, tables.tool_usages)) == 3)
    found = {
        row["id"]: (row["thread_parent_id"], row["thread_root_id"])
        for row in rows(recorder, tables.interceptions)
    }
    assert found == {ids[0]: (None, None), ids[1]: (ids[0], ids[0]), ids[2]: (ids[1], ids[0])}


def test_without_a_spool_what_is_dear_waits_and_the_rest_is_refused(
    recorder_that_refuses: Recorder, url: str
) -> None:
    recorder = recorder_that_refuses
    id, refused = new_id(), new_id()
    recorder.write(started(id), must_keep=False)
    with locked(url):
        with pytest.raises(RecordingFailed):
            recorder.write(started(refused), must_keep=False)
        with pytest.raises(RecordingFailed):
            recorder.write(Ended(id, now(), status_code=200), must_keep=True)
        assert not recorder.healthy
    wait_until(lambda: recorder.healthy)
    wait_until(lambda: rows(recorder, tables.interceptions)[0]["status_code"] == 200)
    assert [row["id"] for row in rows(recorder, tables.interceptions)] == [id]


def test_a_server_that_is_not_ready_finds_out_by_itself_that_it_is_again(
    recorder_that_refuses: Recorder, url: str
) -> None:
    with locked(url):
        with pytest.raises(RecordingFailed):
            recorder_that_refuses.write(started(new_id()), must_keep=False)
        assert not recorder_that_refuses.healthy
    wait_until(lambda: recorder_that_refuses.healthy)


def test_a_full_disk_refuses_and_loses_nothing_that_was_taken(recorder: Recorder, url: str) -> None:
    ids = [new_id() for _ in range(2)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with locked(url):
        recorder.write(started(ids[0]), must_keep=False)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, limits[1]))
        try:
            with pytest.raises(RecordingFailed):
                recorder.write(started(ids[1]), must_keep=False)
            with pytest.raises(RecordingFailed):
                recorder.write(Ended(ids[0], now(), status_code=200), must_keep=True)
            assert not recorder.healthy
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    wait_until(lambda: [row["status_code"] for row in rows(recorder, tables.interceptions)] == [200])
    wait_until(lambda: recorder.healthy)


def test_what_a_closed_recorder_left_in_its_spool_is_written_by_another(url: str, tmp_path: Path) -> None:
    first, id = make(url), new_id()
    with locked(url):
        first.write(started(id), Ended(id, now(), status_code=200), must_keep=True)
        first.close()
    second = make(url)
    wait_until(lambda: [row["status_code"] for row in rows(second, tables.interceptions)] == [200])
    second.close()
    assert list((tmp_path / "spool").iterdir()) == []


def test_the_spools_folder_belongs_to_its_owner_alone(recorder: Recorder, url: str, tmp_path: Path) -> None:
    recorder.start()
    folder = tmp_path / "spool"
    with locked(url):
        recorder.write(started(new_id()), must_keep=False)
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_a_folder_that_cannot_be_used_stops_the_start(url: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="spool_dir"):
        spool_folder(str(tmp_path / "file"), sa.make_url("sqlite:///x"))


def test_one_bad_entry_does_not_take_its_neighbours_along(recorder: Recorder) -> None:
    good = [new_id() for _ in range(3)]
    recorder.record(started(good[0]))
    recorder.record(TokenUsage("nobody", 0, "r", "m", Usage(), now()))  # belongs to no interception
    recorder.record(started(good[1]))
    recorder.write(started(good[2]), must_keep=False)
    assert {row["id"] for row in rows(recorder, tables.interceptions)} == set(good)


def test_a_parent_is_found_among_the_same_actors_calls(recorder: Recorder) -> None:
    parent, stranger, child = new_id(), new_id(), new_id()
    recorder.write(
        started(parent), ToolUsage(parent, 0, 0, "r", "call_1", "", "Read", "", now()), must_keep=True
    )
    other = Started(stranger, "bob", now())
    recorder.write(other, ToolUsage(stranger, 0, 0, "r", "call_1", "", "Read", "", now()), must_keep=True)
    recorder.write(started(child, correlating_tool_call_id="call_1"), must_keep=True)
    found = {row["id"]: row["thread_parent_id"] for row in rows(recorder, tables.interceptions)}
    assert found == {parent: None, stranger: None, child: parent}


@pytest.mark.parametrize("step", ["all at once", "one by one"])
def test_the_migrations_make_the_tables(empty_database_url: str, step: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    engine = databases.connect(empty_database_url)
    if step == "one by one":
        with engine.connect().execution_options(writes=True) as connection, connection.begin():
            databases.upgrade(connection)
    databases.migrate(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, tables.metadata) == []
        assert context.get_current_revision() == databases.HEAD
        indexes = sa.inspect(connection).get_indexes("interceptions")
    of_some = {one["name"] for one in indexes if f"{engine.dialect.name}_where" in one["dialect_options"]}
    assert of_some == {f"ix_interceptions_{what}" for what in ("session", "thread_root", "worker")}


SLOW_INDEXES = """
CREATE FUNCTION be_slow() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.6); END';
CREATE EVENT TRIGGER slow ON ddl_command_start WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION be_slow();
"""


def test_a_migration_keeps_the_rows_and_takes_as_long_as_it_needs(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alembic import command
    from alembic.config import Config

    monkeypatch.setattr(databases, "_TIMEOUT_MS", 500)  # for statements other than a migration's
    engine, id = databases.connect(empty_database_url), new_id()
    databases.migrate(engine)
    recorder = make(empty_database_url)
    recorder.write(started(id, client_session_id="s"), must_keep=True)
    recorder.close()
    before = rows(recorder, tables.interceptions)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        to_0002 = Config(attributes={"connection": connection})
        to_0002.set_main_option("script_location", str(Path(databases.__file__).parent / "migrations"))
        command.downgrade(to_0002, "0002")
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text(SLOW_INDEXES))
    databases.migrate(engine)
    assert databases._version(engine) == databases.HEAD
    assert rows(recorder, tables.interceptions) == before


def test_many_processes_can_start_on_an_empty_database(empty_database_url: str) -> None:
    url = empty_database_url
    code = f"from aibridge_flask.records import database as d; e = d.connect({url!r}); d.migrate(e); print(d._version(e))"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for _ in range(6)
    ]
    assert [process.communicate()[0].decode().strip() for process in processes] == [databases.HEAD] * 6


def test_a_database_of_another_version_stops_the_start(url: str) -> None:
    engine = databases.connect(url)
    databases.migrate(engine)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigError, match="another version"):
        databases.migrate(engine)


def test_a_database_that_cannot_be_opened_stops_the_start(url: str, tmp_path: Path) -> None:
    away = (
        f"sqlite:///{tmp_path}/no/such/records.db"
        if "sqlite" in url
        else "postgresql+psycopg://me:canary@127.0.0.1:1/x"
    )
    with pytest.raises(ConfigError, match=r"database_url: .* cannot be used") as caught:
        databases.migrate(databases.connect(away))
    assert "canary" not in str(caught.value)
