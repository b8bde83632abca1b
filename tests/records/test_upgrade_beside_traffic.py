"""Changes of the tables on PostgreSQL, while others read and build."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from aibridge_flask.cli import aibridge
from aibridge_flask.errors import ConfigError
from aibridge_flask.records import additions
from aibridge_flask.records import database as databases
from tests.support.schema import differences, drop_an_index, set_info, version
from tests.support.server import wait_until

pytestmark = pytest.mark.parametrize("database", ["postgresql"])


def test_an_upgrade_says_that_another_process_builds_the_indexes(
    empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIBRIDGE_DATABASE_URL", empty_database_url)
    monkeypatch.setenv("AIBRIDGE_SPOOL_DIR", f"{tmp_path}/spool")
    engine = databases.connect(empty_database_url)
    databases.migrate(engine)
    drop_an_index(engine)
    with engine.connect() as builder:
        builder.execute(sa.select(sa.func.pg_try_advisory_lock(additions._INDEX_LOCK_ID)))
        told = CliRunner().invoke(aibridge, ["db", "upgrade"])
    assert told.exit_code == 1
    assert told.output.startswith("Error: another process builds the indexes")
    assert told.output.count("\n") == 1
    assert CliRunner().invoke(aibridge, ["db", "upgrade"]).exit_code == 0


def make_tables_without_a_column(engine: sa.Engine) -> None:
    databases.migrate(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE interceptions DROP COLUMN profile"))
    set_info(engine, version="3")


def is_waiting_for_a_lock(engine: sa.Engine) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with engine.connect() as connection:
        return bool(connection.scalar(sa.text(query)))


def test_nobody_waits_long_behind_an_upgrade_that_waits_for_a_reader(empty_database_url: str) -> None:
    engine = databases.connect(empty_database_url)
    make_tables_without_a_column(engine)
    upgrade = threading.Thread(target=databases.migrate, args=(databases.connect(empty_database_url),))
    count = sa.text("SELECT count(*) FROM interceptions")
    with engine.connect() as reader:
        reader.execute(count)
        upgrade.start()
        wait_until(lambda: is_waiting_for_a_lock(engine))
        with engine.begin() as other:
            other.execute(sa.text("SET LOCAL statement_timeout = '3s'"))
            other.execute(count)
    upgrade.join()
    assert differences(engine) == []
    assert version(engine) == str(databases.VERSION)


def test_an_upgrade_gives_up_if_a_reader_stays(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(databases._LOCK_ATTEMPTS, "postgresql", 2)
    engine = databases.connect(empty_database_url)
    make_tables_without_a_column(engine)
    with engine.connect() as reader:
        reader.execute(sa.text("SELECT count(*) FROM interceptions"))
        with pytest.raises(ConfigError, match="another session holds a lock"):
            databases.migrate(engine)
    databases.migrate(engine)
    assert differences(engine) == []
