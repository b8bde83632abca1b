"""`aibridge limit`."""

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
def _settings(database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("AIBRIDGE_DATABASE_URL", database_url)
    monkeypatch.setenv("AIBRIDGE_SPOOL_DIR", f"{tmp_path}/spool")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(aibridge, list(arguments))


ADD = ("limit", "add", "--name", "alice per day", "--scope", "actor=alice", "--per", "day", "--usd", "20")


def test_a_limit_is_added_listed_and_removed() -> None:
    assert run(*ADD, "--model", "claude-*").output == 'Limit "alice per day" is made.\n'
    assert run(*ADD).exit_code == 1
    (listed,) = json.loads(run("limit", "list", "--json").output)
    assert (listed["scope"], listed["usd"], listed["models"]) == ({"actor": "alice"}, 20.0, ["claude-*"])
    assert "actor=alice" in run("limit", "list").output
    assert run("limit", "rebuild").output.startswith("1 limits are counted anew")
    assert json.loads(run("limit", "rebuild", "--json").output) == ["alice per day"]
    assert run("limit", "remove", "alice per day").exit_code == 0
    assert run("limit", "remove", "alice per day").exit_code == 1


@pytest.mark.parametrize(
    "wrong",
    [
        ("--scope", "planet=x"),
        ("--per", "fortnight"),
        ("--mode", "hope"),
        ("--requests", "5"),
        ("--until", "soon"),
    ],
)
def test_a_wrong_limit_is_a_wrong_call(wrong: tuple[str, str]) -> None:
    result = run(*ADD, *wrong)
    assert (result.exit_code, result.exception.__class__) == (2, SystemExit)


def test_the_check_finds_a_wrong_ledger_and_corrects_it(database_url: str) -> None:
    run(*ADD)
    with (
        databases.connect(database_url).connect().execution_options(writes=True) as connection,
        connection.begin(),
    ):
        row = "(1, 4102444800, 'alice per day', 'alice', 7)"
        connection.execute(
            sa.text(f"INSERT INTO ledger (account, bucket, limit_name, subject, spent) VALUES {row}")
        )
    found = run("db", "check")
    assert found.exit_code == 1
    assert (
        "wrong sum in ledger ('alice per day', 'alice', 4102444800): to be added are spent -7" in found.output
    )
    assert run("db", "check", "--repair").exit_code == 0
    assert run("db", "check").exit_code == 0
