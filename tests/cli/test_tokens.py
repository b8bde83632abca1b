"""`aibridge token` says what it did, and leaves a trace."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from aibridge_flask.cli import aibridge
from aibridge_flask.records.sum_tables import audit
from tests.support.records import rows


@pytest.fixture(autouse=True)
def _settings(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIBRIDGE_DATABASE_URL", database_url)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(aibridge, ["token", *arguments])


def test_groups_are_listed(database_url: str) -> None:
    token = run("create", "--user", "ann", "--group", "web", "--group", " core ").output.strip()
    assert run("list").output.splitlines()[1].split()[-1] == "core,web"
    (listed,) = json.loads(run("list", "--json").output)
    assert (listed["user"], listed["groups"], listed["admin"]) == ("ann", ["core", "web"], False)
    assert (listed["expires_at"], listed["revoked_at"], listed["last_used_at"]) == (None, None, None)
    assert token not in str(listed)


def test_a_new_token_is_json_for_scripts() -> None:
    made = json.loads(run("create", "--user", "ann", "--days", "1", "--json").output)
    (listed,) = json.loads(run("list", "--json").output)
    assert made.pop("token").startswith("aib_")
    assert made == listed


def test_the_user_of_the_command_line_is_in_the_audit(database_url: str) -> None:
    run("create", "--user", "ann")
    (listed,) = json.loads(run("list", "--json").output)
    assert run("revoke", listed["id"]).output == f"Token {listed['id']} is revoked.\n"
    assert {row["actor_id"].partition(":")[0] for row in rows(database_url, audit)} == {"cli"}
    assert sorted(row["action"] for row in rows(database_url, audit)) == ["token.create", "token.revoke"]


@pytest.mark.parametrize("group", ["", " ", "a\nb", "x" * 257])
def test_a_group_is_a_line(group: str) -> None:
    assert run("create", "--user", "ann", "--group", group).exit_code == 2


def test_a_database_that_is_away_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIBRIDGE_DATABASE_URL", "postgresql+psycopg://me:canary@127.0.0.1:1/x")
    assert run("list").exit_code == 1
    assert "canary" not in run("list").output
