"""`docs/records.md`: each path has an example, which is what the API answers."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from aibridge_flask.reading.search import KEYS
from aibridge_flask.records import database as databases
from aibridge_flask.records import tokens
from aibridge_flask.records.recorder import Recorder
from tests.conftest import MakeApp
from tests.support.history import History
from tests.support.people import Person, app_for_people
from tests.support.server import PREFIX
from tests.support.upstream import Upstream

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "records.md").read_text()
EXAMPLE = re.compile(
    r"```http\n(GET|POST|DELETE) (\S+)(?:\n\n(.+?))?\n```\n\n```(json|csv|jsonl)\n(.+?)```", re.DOTALL
)
EXAMPLES = {f"{method} {path}": rest for method, path, *rest in EXAMPLE.findall(PAGE)}
ANYTHING = "…"
PRICES = {
    "claude-sonnet-4-5": {
        "input": 3.0,
        "output": 15.0,
        "cache_read": 0.3,
        "cache_write": 3.75,
        "cache_write_1h": 6.0,
    }
}


@pytest.fixture
def app(make_app: MakeApp, database_url: str) -> Flask:
    """What the examples tell of: a question of Ann's, whose answer calls a tool twice."""
    app = app_for_people(make_app, prices=PRICES)
    recorder = Recorder(app.config["AIBRIDGE_SETTINGS"])
    History(recorder).add(
        "ann",
        datetime(2026, 11, 2, 9, 30, tzinfo=UTC),
        id="019a3e7c-5a40-7000-8000-000000000001",
        prompt="Why does the build fail?",
        tools=(("Read", "toolu_1"), ("Bash", "failed_2")),
        thought="The log will say.",
        client_session_id="6f1d",
        route="/v1/messages",
        metadata={"username": "Ann"},
        groups=("blue", "red"),
        streaming=True,
        credential_hint="sk-a...6789",
        user_agent="claude-cli/2.1",
    )
    recorder.close()
    tokens.create(databases.connect(database_url), "ann", False, 30, ("red",), by="root")
    return app


def values_match(example: Any, answer: Any) -> bool:
    """Whether an answer is an example's; "…" stands for any value, and `["…"]` for any list."""
    if example == ANYTHING or (example == [ANYTHING] and isinstance(answer, list)):
        return True
    if isinstance(example, dict) and isinstance(answer, dict):
        return example.keys() == answer.keys() and all(
            values_match(example[key], answer[key]) for key in example
        )
    if isinstance(example, list) and isinstance(answer, list):
        return len(example) == len(answer) and all(map(values_match, example, answer))
    return bool(example == answer)


@pytest.mark.parametrize("request_line", EXAMPLES)
def test_an_example_is_what_is_answered(app: Flask, upstream: Upstream, request_line: str) -> None:
    method, path = request_line.split(" ")
    body, kind, expected = EXAMPLES[request_line]
    root = Person(app, upstream, "root")
    answer = root.change(method, path, json.loads(body)) if body else root.get(path, method)
    assert answer.status_code in (200, 201)
    if kind == "csv":
        assert answer.text.replace("\r\n", "\n") == expected
    else:
        assert values_match(
            json.loads(expected), answer.get_json() if kind == "json" else json.loads(answer.text)
        ), answer.text


def test_each_path_has_an_example(app: Flask, upstream: Upstream) -> None:
    paths = Person(app, upstream, "root").read("/openapi.json")["paths"]
    documented = {path.removeprefix(PREFIX) for path in paths}
    shown = {line.split(" ")[1].partition("?")[0] for line in EXAMPLES}
    missing = {
        path
        for path in documented
        if not any(re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", path), each) for each in shown)
    }
    assert missing == {"/openapi.json", "/tokens/{id}", "/live/{id}"}


def test_each_key_of_the_search_is_in_the_table() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == set(KEYS)
