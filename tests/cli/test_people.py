"""`aibridge export` and `aibridge erase`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from aibridge_flask.cli import aibridge
from aibridge_flask.model import new_id
from aibridge_flask.records import database as databases
from aibridge_flask.records import sum_tables, tables, tokens
from aibridge_flask.records.events import StoredObject, now
from aibridge_flask.records.recorder import Recorder
from tests.conftest import BOTH_DATABASES
from tests.support.aged import apply, contents, interception
from tests.support.records import is_applied, rows, settings
from tests.support.server import ROOT, toml, wait_until

pytestmark = BOTH_DATABASES
ID = new_id()


@pytest.fixture(autouse=True)
def _history(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = {"type": "openai", "base_url": "http://127.0.0.1:1", "api_dump_dir": str(tmp_path / "dumps")}
    path = tmp_path / "aibridge.toml"
    spool = tmp_path / "spool"
    path.write_text(
        f"database_url = {toml(database_url)}\nspool_dir = {toml(str(spool))}\nproviders = {toml([provider])}\n"
    )
    monkeypatch.setenv("AIBRIDGE_CONFIG", str(path))
    apply(
        database_url,
        *interception(ID, 2, "Jabberwocky", "ann", groups=("core", "web")),
        *interception("later", 1, "more", "ann"),
        *interception("other", 1, "kept", "bob"),
        StoredObject("openai", "resp_1", "ann", now()),
    )
    tokens.create(databases.connect(database_url), "ann", False, 0)
    folder = tmp_path / "dumps" / "openai" / "m"
    folder.mkdir(parents=True)
    for id in (ID, new_id()):
        (folder / f"1700000000000-{id}.req.txt").write_text("Jabberwocky")


@pytest.fixture
def recorder(database_url: str, tmp_path: Path) -> Iterator[Recorder]:
    """A worker that has just recorded something of hers."""
    recorder = Recorder(settings(database_url, spool_dir=str(tmp_path / "spool")))
    recorder.begin(*interception("new", 0, "Jabberwocky", "ann")[:2])
    wait_until(lambda: is_applied(recorder))
    yield recorder
    recorder.close()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(aibridge, arguments)


def test_an_export_is_a_json_object_a_line(database_url: str) -> None:
    result = run("export", "--actor", "ann")
    assert result.exit_code == 0
    found = [json.loads(line) for line in result.output.splitlines()]
    kinds = [each["type"] for each in found]
    assert kinds == ["interception", "interception", "gateway_token", "stored_object", "audit", "audit"]
    first, second, token, stored, *_ = found
    assert (first["id"], second["id"], stored["id"]) == (ID, "later", "resp_1")
    assert first["groups"] == ["core", "web"]
    assert first["user_prompts"][0]["prompt"] == "prompt Jabberwocky"
    assert [tool["tool"] for tool in first["tool_usages"]] == ["Bash", "Read", "Read"]
    assert (first["token_usages"][0]["output_tokens"], first["model_thoughts"][0]["source"]) == (
        20,
        "thinking",
    )
    assert "digest" not in token
    assert "kept" not in result.output
    assert run("export", "--actor", "nobody").output.count("\n") <= 1


def test_many_are_exported_in_slices(database_url: str) -> None:
    apply(
        database_url,
        *(event for n in range(250) for event in interception(f"{n:03}", 3 + n / 100, "", "ann")),
    )
    lines = run("export", "--actor", "ann").output.splitlines()
    ids = [json.loads(line)["id"] for line in lines if '"interception"' in line]
    assert ids == [*(f"{n:03}" for n in reversed(range(250))), ID, "later"]


def test_an_erasure_says_what_it_did(database_url: str, recorder: Recorder, tmp_path: Path) -> None:
    result = run("erase", "--actor", "ann", "--yes", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.output) == {
        "interceptions": 3,
        "tokens": 1,
        "stored_objects": 1,
        "log_places": 1,
        "rejected_events": 0,
        "dumps": 1,
        "unapplied": 0,
        "is_traceless": True,
    }
    files = [path.read_bytes() for path in (tmp_path / "spool").rglob("*") if path.is_file()]
    assert not [data for data in files if b"Jabberwocky" in data]
    assert len(list((tmp_path / "dumps").rglob("*.txt"))) == 1
    assert contents(database_url) == {ID: 0, "later": 0, "new": 0, "other": 6}
    assert {row["initiator_id"] for row in rows(database_url)} == {"erased", "bob"}
    assert rows(database_url, tables.gateway_tokens) == []
    actions = {row["action"]: row["target"] for row in rows(database_url, sum_tables.audit)}
    assert "ann" not in actions["erase"]
    assert run("erase", "--actor", "ann", "--yes").output.startswith("Erased: 0 interceptions")


def test_without_a_terminal_it_asks_nothing(database_url: str) -> None:
    command = [sys.executable, "-m", "aibridge_flask", "erase", "--actor", "ann"]
    process = subprocess.run(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert process.returncode == 2
    assert "--yes is needed" in process.stderr
    assert contents(database_url)[ID] == 6


@pytest.mark.parametrize("actor", ["", "erased"])
def test_nobody_is_not_erased(actor: str) -> None:
    assert run("erase", "--actor", actor, "--yes").exit_code == 2


def test_a_database_that_is_away_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIBRIDGE_DATABASE_URL", "postgresql+psycopg://me:canary@127.0.0.1:1/x")
    for arguments in (["export", "--actor", "a"], ["erase", "--actor", "a", "--yes"]):
        assert run(*arguments).exit_code == 1
        assert "canary" not in run(*arguments).output
