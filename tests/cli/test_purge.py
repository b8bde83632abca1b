"""`aibridge purge` deletes now what has expired, and says what it did."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from aibridge_flask.cli import aibridge
from aibridge_flask.records.leases import Lease
from aibridge_flask.records.sum_tables import audit
from tests.conftest import BOTH_DATABASES
from tests.support.aged import apply, contents, interception, slices
from tests.support.records import rows

pytestmark = BOTH_DATABASES


@pytest.fixture(autouse=True)
def _settings(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIBRIDGE_DATABASE_URL", database_url)
    monkeypatch.setenv("AIBRIDGE_RECORDS__RETENTION_DAYS", "30")
    apply(database_url, *interception("new", 1), *interception("middle", 40), *interception("old", 500))


def run(*options: str) -> Result:
    return CliRunner().invoke(aibridge, ["purge", *options])


def test_a_dry_run_says_what_would_be_deleted(database_url: str) -> None:
    told = run("--dry-run", "--json")
    assert told.exit_code == 0
    facts = json.loads(told.output)
    oldest = rows(database_url)[2]["started_at"].isoformat().replace("+00:00", "Z")
    assert facts == {"contents": 1, "interceptions": 1, "dry_run": True, "oldest": oldest}
    assert "after 30 days): 1 interceptions' would be deleted" in run("--dry-run").output
    assert len(contents(database_url)) == 3
    assert rows(database_url, audit) == []


def test_what_has_expired_is_deleted_at_once(database_url: str) -> None:
    assert run().output == (
        "Content (prompts, thoughts, tool inputs, error messages; after 30 days): 1 interceptions' deleted.\n"
        "Whole interceptions (after 400 days): 1 deleted.\n"
    )
    assert contents(database_url) == {"new": 6, "middle": 0}
    assert json.loads(run("--json").output) == {"contents": 0, "interceptions": 0, "dry_run": False}
    assert [row["action"] for row in rows(database_url, audit)] == ["purge", "purge"]


def test_another_process_may_be_at_it(database_url: str) -> None:
    with slices(database_url) as work:
        work.write(Lease("retention").take)
    told = run()
    assert (told.exit_code, told.output.count("\n")) == (1, 1)
    assert len(contents(database_url)) == 3


def test_a_database_that_is_away_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIBRIDGE_DATABASE_URL", "postgresql+psycopg://me:canary@127.0.0.1:1/x")
    assert run().exit_code == 1
    assert "canary" not in run().output
