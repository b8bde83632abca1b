"""`aibridge db` makes and checks the tables."""

from __future__ import annotations

import json

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from aibridge_flask.cli import aibridge
from aibridge_flask.records import database as databases
from tests.conftest import BOTH_DATABASES

pytestmark = BOTH_DATABASES


@pytest.fixture(autouse=True)
def _settings(empty_database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("AIBRIDGE_DATABASE_URL", empty_database_url)
    monkeypatch.setenv("AIBRIDGE_SPOOL_DIR", f"{tmp_path}/spool")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(aibridge, ["db", *arguments])


def test_upgrade_makes_the_tables_and_may_be_repeated() -> None:
    assert run("check").exit_code == 1
    for _ in range(2):
        assert (run("upgrade").exit_code, run("upgrade").output) == (
            0,
            f"The database has the tables of version {databases.VERSION}.\n",
        )
    assert run("check").exit_code == 0


def test_check_names_what_is_missing_and_repairs_it(empty_database_url: str) -> None:
    run("upgrade")
    with databases.connect(empty_database_url).begin() as connection:
        connection.execute(sa.text("DROP INDEX ix_tool_usages_call"))
        connection.execute(sa.text("DROP TABLE logs"))
    told = run("check")
    assert told.exit_code == 1
    assert "missing: logs\nmissing: ix_tool_usages_call\n" in told.output
    assert run("check", "--repair").exit_code == 0
    assert run("check").exit_code == 0


def test_check_says_which_sums_are_wrong_and_corrects_them(empty_database_url: str) -> None:
    run("upgrade")
    engine = databases.connect(empty_database_url)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        insert = "INSERT INTO interceptions (id, metadata, streaming, started_at, ended_at)"
        values = "('a', '{}', :no, '2026-01-01 00:00:00', '2026-01-01 00:01:00')"
        connection.execute(sa.text(f"{insert} VALUES {values}"), {"no": False})
        connection.execute(
            sa.text("INSERT INTO session_usage (session_key, usage_id, requests) VALUES (1, 2, 3)")
        )
    found = run("check")
    assert found.exit_code == 1
    assert "wrong sum in session_usage (1, 2): to be added are requests -3\n" in found.output
    assert "Interceptions that are not summed, or have changed since: 1.\n" in found.output
    found = run("check", "--json")
    facts = json.loads(found.output)
    wrong = {"table": "session_usage", "key": [1, 2], "missing": {"requests": -3}}
    assert (facts["differences"], facts["unsummed"]) == ([wrong], 1)
    assert run("check", "--repair").exit_code == 0
    assert run("check").output.endswith("The sums are right.\n")


def test_a_database_that_is_away_is_one_line(monkeypatch: pytest.MonkeyPatch, database: str) -> None:
    away = {"sqlite": "sqlite:////nowhere/r.db", "postgresql": "postgresql+psycopg://me:canary@127.0.0.1:1/x"}
    monkeypatch.setenv("AIBRIDGE_DATABASE_URL", away[database])
    told = run("check")
    assert told.exit_code == 1
    assert told.output.startswith("Error: the database is away: OperationalError")
    assert told.output.count("\n") == 1
    assert "canary" not in told.output
