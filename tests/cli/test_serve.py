"""`aibridge serve`, `aibridge usage` and `aibridge config show`."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from flask import Flask

from aibridge_flask.cli import aibridge
from tests.conftest import BOTH_DATABASES, MakeApp
from tests.support.people import Person, app_for_people
from tests.support.server import PREFIX, ROOT, answers, free_port, wait_until
from tests.support.upstream import Upstream

SERVE = (sys.executable, "-m", "aibridge_flask", "serve")


def test_it_serves_in_any_folder_with_as_many_workers_as_are_asked_for(tmp_path: Path) -> None:
    port = free_port()
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "AIBRIDGE_DRAIN_DELAY": "0"}
    command = [*SERVE, f"--bind=127.0.0.1:{port}", "--workers=2"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=environ, stderr=log)
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}{PREFIX}/readyz"))
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        assert len(children.read_text().split()) == 2
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    log_text = (tmp_path / "log").read_text()
    assert "Using worker: DrainingWorker" in log_text or "DrainingWorker" in log_text
    assert "MonkeyPatchWarning" not in log_text
    assert (tmp_path / "aibridge.db").exists()


@pytest.mark.parametrize(
    ("arguments", "environ", "status", "words"),
    [
        (["--workers=0"], {}, 2, "--workers"),
        ([], {"AIBRIDGE_AUTH__MODE": "open"}, 1, "aibridge: auth.mode: "),
    ],
)
def test_what_cannot_be_served_is_said_in_a_line(
    tmp_path: Path, arguments: list[str], environ: dict[str, str], status: int, words: str
) -> None:
    command = [*SERVE, f"--bind=127.0.0.1:{free_port()}", *arguments]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **environ}
    ended = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert (ended.returncode, "Traceback" in ended.stderr) == (status, False)
    assert words in ended.stderr


@pytest.fixture
def app(make_app: MakeApp, upstream: Upstream, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Flask:
    monkeypatch.setenv("AIBRIDGE_DATABASE_URL", database_url)
    app = app_for_people(make_app)
    for name, count in (("ann", 2), ("bob", 1)):
        for _ in range(count):
            Person(app, upstream, name).ask()
    Person(app, upstream, "root").read("/usage")  # everything is in the database
    return app


def usage(*arguments: str) -> Result:
    return CliRunner().invoke(aibridge, ["usage", *arguments])


@BOTH_DATABASES
def test_usage_is_what_the_api_says(app: Flask, upstream: Upstream) -> None:
    told = json.loads(usage("--group-by=initiator,model", "--format=json").output)
    assert told == Person(app, upstream, "root").read("/usage", group_by="initiator,model")
    assert json.loads(usage("--group-by=initiator,model", "--json").output) == told
    assert [(row["initiator"], row["requests"]) for row in told["results"]] == [("ann", 2), ("bob", 1)]
    assert json.loads(usage("--until=2020-01-01", "--format=json").output)["totals"]["requests"] == 0
    assert json.loads(usage("--since=2020-01-01", "--format=json").output)["totals"]["requests"] == 3


def test_usage_is_a_table_or_a_file(app: Flask) -> None:
    head, first, second, last = usage("--group-by", "initiator").output.splitlines()
    assert head.split()[:3] == ["INITIATOR", "REQUESTS", "ERRORS"]
    assert [line.split()[:2] for line in (first, second, last)] == [["ann", "2"], ["bob", "1"], ["all", "3"]]
    rows = [*csv.DictReader(io.StringIO(usage("--group-by=initiator", "--format=csv").output))]
    assert [(row["initiator"], row["requests"]) for row in rows] == [("ann", "2"), ("bob", "1")]
    assert "BilledCost" in usage("--format=focus").output.splitlines()[0]


def test_usage_without_a_price_is_not_free(app: Flask, upstream: Upstream) -> None:
    Person(app, upstream, "ann").ask(model="of-nobody")
    Person(app, upstream, "root").read("/usage")
    *lines, last = usage("--group-by=model").output.splitlines()
    assert last == "Without a price: of-nobody"
    (row,) = (line.split() for line in lines if line.startswith("of-nobody"))
    assert row[-2:] == ["unpriced", "1"]


@pytest.mark.parametrize(
    "arguments",
    [["--group-by=name"], ["--group-by=day,hour,model,client"], ["--format=xml"], ["--since=now"]],
)
def test_a_question_that_cannot_be_asked_is_status_2(arguments: list[str]) -> None:
    assert usage(*arguments).exit_code == 2


def test_usage_of_a_database_that_is_away_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIBRIDGE_DATABASE_URL", "postgresql+psycopg://me:canary@127.0.0.1:1/x")
    told = usage()
    assert (told.exit_code, "canary" in told.output) == (1, False)


def test_settings_are_shown_with_their_source_and_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "aibridge.toml"
    file.write_text(
        """
        database_url = "postgresql+psycopg://me:canary-1@db.example.com/records?password=canary-2"
        keepalive_interval = 5.0
        [auth]
        mode = "token"
        [prices.mine]
        input = 1.0
        output = 2.0
        [[providers]]
        type = "bedrock"
        aws = { region = "eu-central-1", access_key = { value = "canary-3" }, secret_key = { value = "canary-4" }, model = "m", small_fast_model = "s" }
        [[providers]]
        type = "openai"
        keys = [{ value = "canary-5" }]
        proxy = "http://me:canary-6@proxy:1"
        [[mcp_servers]]
        name = "docs"
        url = "http://127.0.0.1/mcp"
        headers = { Authorization = { value = "canary-7" } }
        """
    )
    monkeypatch.setenv("AIBRIDGE_CONFIG", str(file))
    monkeypatch.setenv("AIBRIDGE_RECORDS__RETENTION_DAYS", "7")
    told = CliRunner().invoke(aibridge, ["config", "show", "--json"])
    found = {each["setting"]: (each["value"], each["source"]) for each in json.loads(told.output)}
    assert found["database_url"] == ("postgresql+psycopg://********@db.example.com/records?********", "file")
    assert found["keepalive_interval"] == (5.0, "file")
    assert found["records.retention_days"] == (7, "environment")
    assert found["records.prompts"] == (True, "default")
    assert found["auth.mode"] == ("token", "file")
    assert found["providers[0].aws.region"] == ("eu-central-1", "file")
    assert found["providers[0].aws.secret_key"] == ("********", "file")
    assert found["providers[1].keys[0]"] == ("********", "file")
    assert found["providers[1].name"] == ("openai", "default")
    assert found["mcp_servers[0].headers.Authorization"] == ("********", "file")
    assert found["prices.mine.output"] == (2.0, "file")
    assert "canary" not in told.output
    assert "canary" not in CliRunner().invoke(aibridge, ["config", "show"]).output
