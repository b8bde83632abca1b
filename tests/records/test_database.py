"""The tables: how they are made, upgraded, and shared by versions."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from aibridge_flask.errors import ConfigError
from aibridge_flask.records import additions
from aibridge_flask.records import database as databases
from aibridge_flask.records.recorder import Recorder
from tests.conftest import BOTH_DATABASES
from tests.support.records import settings, started, statuses
from tests.support.schema import differences, drop_an_index, set_info, version
from tests.support.server import ROOT, wait_until

pytestmark = BOTH_DATABASES
NEW_TABLES = ("logs", "schema_info")


def make_tables_of_the_version_before(engine: sa.Engine) -> None:
    """As Alembic made them; without what was added since."""
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        databases.upgrade(connection)


@pytest.mark.parametrize("begin", ["empty", "the version before"])
def test_a_database_gets_this_versions_tables(empty_database_url: str, begin: str) -> None:
    engine = databases.connect(empty_database_url)
    if begin != "empty":
        make_tables_of_the_version_before(engine)
    databases.migrate(engine)
    additions.create_indexes(engine)
    assert differences(engine) == []
    assert version(engine) == str(databases.VERSION)
    with engine.connect() as connection:
        indexes = sa.inspect(connection).get_indexes("interceptions")
    partial = {
        index["name"] for index in indexes if f"{engine.dialect.name}_where" in index["dialect_options"]
    }
    names = (
        "correlating",
        "kind",
        "session",
        "thread_root",
        "worker",
        "open_session",
        "not_summed",
        "subagents",
    )
    assert partial == {f"ix_interceptions_{name}" for name in names}


def test_an_upgrade_keeps_the_rows_and_the_version_before_goes_on_beside_it(empty_database_url: str) -> None:
    engine = databases.connect(empty_database_url)
    make_tables_of_the_version_before(engine)
    insert = sa.text(
        "INSERT INTO interceptions (id, metadata, streaming, started_at) VALUES (:id, '{}', :no, :moment)"
    )
    moment = str(datetime(2026, 1, 1, tzinfo=UTC))
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(insert, {"id": "old", "no": False, "moment": moment})
    databases.migrate(engine)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(insert, {"id": "new by old code", "no": False, "moment": moment})
        # what that version looks at when it starts
        assert connection.scalar(sa.text("SELECT version_num FROM alembic_version")) == "0003"
    assert set(statuses(empty_database_url)) == {"old", "new by old code"}


def test_an_index_that_a_failed_build_left_is_built_anew(empty_database_url: str, database: str) -> None:
    engine = databases.connect(empty_database_url)
    databases.migrate(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP INDEX ix_interceptions_correlating"))
        if database == "postgresql":
            connection.execute(sa.text("CREATE INDEX ix_interceptions_correlating ON interceptions (route)"))
            connection.execute(
                sa.text(
                    "UPDATE pg_index SET indisvalid = false"
                    " WHERE indexrelid = 'ix_interceptions_correlating'::regclass"
                )
            )
    additions.create_indexes(engine)
    assert differences(engine) == []


@pytest.fixture
def kept(empty_database_url: str) -> Iterator[sa.Engine]:
    """An engine whose sessions outlive their use, as behind PgBouncer."""
    engine = sa.create_engine(empty_database_url, poolclass=sa.pool.QueuePool)
    databases.migrate(engine)
    yield engine
    engine.dispose()


def test_a_build_leaves_no_lock_in_a_session_that_is_kept(empty_database_url: str, kept: sa.Engine) -> None:
    engine = databases.connect(empty_database_url)
    for builder in (kept, engine):
        drop_an_index(engine)
        assert additions.create_indexes(builder)
        assert differences(engine) == []


def test_a_build_that_fails_leaves_no_lock(empty_database_url: str, kept: sa.Engine) -> None:
    engine = databases.connect(empty_database_url)
    drop_an_index(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE VIEW ix_tool_usages_call AS SELECT 1"))
    with pytest.raises(sa.exc.SQLAlchemyError):
        additions.create_indexes(kept)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP VIEW ix_tool_usages_call"))
    assert additions.create_indexes(engine)
    assert differences(engine) == []


_START = """
import os, sys
from aibridge_flask.records import database
processes = []
ready, go = os.pipe()
for _ in range(6):
    if not (pid := os.fork()):
        os.close(go)
        os.read(ready, 1)  # until all are there
        engine = database.connect(sys.argv[1])
        database.migrate(engine)
        with engine.connect() as connection:
            os._exit(database.read_info(connection)["version"] != str(database.VERSION))
    processes.append(pid)
os.close(go)
sys.exit(any(os.waitpid(pid, 0)[1] for pid in processes))
"""


def test_many_processes_can_start_on_an_empty_database(empty_database_url: str) -> None:
    command = [sys.executable, "-c", _START, empty_database_url]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_newer_schema_is_waited_out_and_said_plainly(
    database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = databases.connect(database_url)
    set_info(engine, min_code="99")
    with pytest.raises(databases.SchemaTooNew, match="needs version 99"):
        databases.migrate(engine)
    recorder = Recorder(settings(database_url, spool_dir=str(tmp_path / "spool")))
    recorder.begin(started("waits"))
    wait_until(lambda: "needs version 99" in caplog.text)
    assert recorder.healthy
    set_info(engine, min_code="4")
    wait_until(lambda: "waits" in statuses(database_url))
    recorder.close()


def test_a_newer_schema_that_admits_this_version_is_written_to(database_url: str, tmp_path: Path) -> None:
    engine = databases.connect(database_url)
    set_info(engine, version="99", min_code="4")
    databases.migrate(engine)
    assert version(engine) == "99"


def test_a_database_of_an_unknown_version_stops_the_start(database_url: str) -> None:
    engine = databases.connect(database_url)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigError, match="another version"):
        databases.migrate(engine)


def test_a_database_that_cannot_be_opened_stops_the_start(database: str, tmp_path: Path) -> None:
    away = {
        "sqlite": f"sqlite:///{tmp_path}/no/such/records.db",
        "postgresql": "postgresql+psycopg://me:canary@127.0.0.1:1/x",
    }
    with pytest.raises(ConfigError, match=r"database_url: .* cannot be used") as caught:
        databases.migrate(databases.connect(away[database]))
    assert "canary" not in str(caught.value)
