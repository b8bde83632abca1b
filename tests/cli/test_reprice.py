"""`aibridge reprice` prices anew what was recorded, and says what has changed."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from aibridge_flask import config
from aibridge_flask.cli import aibridge
from aibridge_flask.model import Asked, Usage
from aibridge_flask.pricing import PriceList
from aibridge_flask.records import database as databases
from aibridge_flask.records import tables
from aibridge_flask.records.events import Ended, Event, Started, TokenUsage
from aibridge_flask.records.repricing import Repricing, Selection
from aibridge_flask.records.store import Store
from aibridge_flask.records.sum_check import Comparison, SumCheck
from aibridge_flask.records.sum_tables import usage_hourly
from tests.conftest import BOTH_DATABASES
from tests.support.records import rows
from tests.support.server import ROOT, toml

pytestmark = BOTH_DATABASES
THEN = datetime(2026, 11, 1, tzinfo=UTC)
BEFORE = {"old": {"input": 1.0, "output": 2.0}}
NOW = {"old": {"input": 3.0, "output": 5.0}, "new*": {"input": 1.0, "output": 1.0}}


def interception(
    id: str, model: str, day: int = 1, is_estimated: bool = False, inner: str = ""
) -> list[Event]:
    at = THEN.replace(day=day)
    usages = [TokenUsage(id, 0, "r", model, Usage(10, 20), at, asked=Asked(model, "openai", "openai"))]
    if inner:
        usages.append(TokenUsage(id, 1, "r", inner, Usage(100), at, asked=Asked("", "openai", "openai")))
    end = Ended(id, at, status_code=200, usages=tuple(usages), is_estimated=is_estimated)
    return [Started(id, "ann", at, provider="openai", provider_name="openai", model=model), *usages, end]


@pytest.fixture
def store(database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    """A database with interceptions; the settings have other prices since."""
    store = Store(databases.connect(database_url), PriceList(config.load({"prices": BEFORE})))
    events = [
        *interception("1", "old"),
        *interception("2", "old", day=5, is_estimated=True),
        *interception("3", "new-one", day=5),
        *interception("4", "old", day=9, inner="new-two"),
        *interception("5", "unknown", day=9),
    ]
    apply(store, events)
    path = tmp_path / "aibridge.toml"
    path.write_text(f"database_url = {toml(database_url)}\nprices = {toml(NOW)}\n")
    monkeypatch.setenv("AIBRIDGE_CONFIG", str(path))
    return store


def apply(store: Store, events: list[Event]) -> None:
    store.open()
    position = store.position("log")
    store.apply("log", events, position, position + 1)
    store.close()


def run(*options: str) -> Result:
    result = CliRunner().invoke(aibridge, ["reprice", *options])
    assert result.exit_code == 0, result.output
    return result


def costs(url: str) -> dict[str, tuple[int | None, str]]:
    return {row["id"]: (row["cost_micros"], row["cost_status"]) for row in rows(url)}


OLD = {
    "1": (50, "priced"),
    "2": (50, "estimated"),
    "3": (None, "unpriced"),
    "4": (50, "partly"),
    "5": (None, "unpriced"),
}
NEW = {
    "1": (130, "priced"),
    "2": (130, "estimated"),
    "3": (30, "priced"),
    "4": (230, "priced"),
    "5": (None, "unpriced"),
}


def test_a_dry_run_shows_what_would_change(store: Store, database_url: str) -> None:
    lines = run("--dry-run").output.splitlines()
    assert [line.split() for line in lines[1:-1]] == [
        ["new-one", "1", "0.000000", "0.000030", "0.000030"],
        ["old", "3", "0.000150", "0.000490", "0.000340"],
        ["all", "4", "0.000150", "0.000520", "0.000370"],
    ]
    assert lines[-1] == "5 interceptions looked at, 4 would change."
    assert costs(database_url) == OLD


def test_costs_change_once(store: Store, database_url: str) -> None:
    assert run().output.splitlines()[-1] == "5 interceptions looked at, 4 changed."
    assert costs(database_url) == NEW
    parts = {
        (row["interception_id"], row["turn"]): row["cost_micros"]
        for row in rows(database_url, tables.token_usages)
    }
    assert (parts["4", 0], parts["4", 1], parts["5", 0]) == (130, 100, None)
    assert run().output == "5 interceptions looked at, 0 changed.\n"


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        (["--since", "2026-11-05"], {"2", "3", "4"}),
        (["--since", "2026-11-05T00:00:01Z"], {"4"}),
        (["--model", "old"], {"1", "2", "4"}),
        (["--model", "new-t*"], {"4"}),
        (["--model", "new_*"], set()),
        (["--unpriced"], {"3", "4"}),
        (["--unpriced", "--since", "2026-11-06"], {"4"}),
    ],
)
def test_some_are_selected(store: Store, database_url: str, options: list[str], changed: set[str]) -> None:
    told: Any = json.loads(run("--json", *options).output)
    assert (told["changed"], told["dry_run"]) == (len(changed), False)
    assert costs(database_url) == {id: (NEW if id in changed else OLD)[id] for id in NEW}


def test_many_are_priced_in_slices_and_sums_hear_of_it(store: Store, database_url: str) -> None:
    apply(store, [event for n in range(450) for event in interception(f"many {n:03}", "old")])
    engine = databases.connect(database_url)
    before = cost_by_hour(database_url)
    repriced = list(Repricing(engine, PriceList(config.load({"prices": NOW}))).run(Selection(model="old")))
    assert [(each.before, each.after) for each in repriced].count((50, 130)) == 452
    changed = sum((each.after or 0) - (each.before or 0) for each in repriced)
    assert changed >= 452 * 80
    assert cost_by_hour(database_url) - before == changed
    assert SumCheck(engine).compare() == Comparison()


def cost_by_hour(url: str) -> int:
    return sum(row["cost_micros"] for row in rows(url, usage_hourly))


def test_a_database_that_is_away_is_one_line(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIBRIDGE_DATABASE_URL", "postgresql+psycopg://me:canary@127.0.0.1:1/x")
    command = [sys.executable, "-m", "aibridge_flask", "reprice"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout, process.stderr.count("\n")) == (1, "", 1)
    assert "canary" not in process.stderr
