"""Interceptions of a given age, with everything that people and models wrote."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from aibridge_flask import config
from aibridge_flask.model import Usage
from aibridge_flask.pricing import PriceList
from aibridge_flask.records import database as databases
from aibridge_flask.records import tables
from aibridge_flask.records.events import (
    Ended,
    Event,
    ModelThought,
    Prompt,
    Started,
    TokenUsage,
    ToolUsage,
    now,
)
from aibridge_flask.records.slices import Slices
from aibridge_flask.records.store import Store
from tests.support.records import rows


def days_ago(days: float) -> datetime:
    return now() - timedelta(days=days)


def interception(id: str, days: float, words: str = "", actor: str = "ann", **members: Any) -> list[Event]:
    """`words` stand in all content."""
    at, words = days_ago(days), words or f"content-of-{id}"
    return [
        Started(id, actor, at, {"username": f"{actor} full name"}, model="m", **members),
        Prompt(id, f"prompt {words}", at),
        TokenUsage(id, 0, f"r-{id}", "m", Usage(10, 20), at),
        ToolUsage(id, 0, 0, f"r-{id}", f"call-{id}", "", "Bash", f'{{"command":"{words}"}}', at),
        ToolUsage(
            id, 0, 1, f"r-{id}", "", "", "Read", "{}", at, True, "http://docs", f"no such file {words}"
        ),
        ToolUsage(id, 0, 2, f"r-{id}", "", "", "Read", "", at, True, "http://docs", f"not run: {words}"),
        ModelThought(id, 0, 0, f"thought {words}", "thinking", at),
        Ended(id, at, status_code=500, error_type="server_error", error_message=f"error {words}"),
    ]


def apply(url: str, *events: Event) -> None:
    """Brings events to the database, as from a log."""
    store = Store(databases.connect(url), PriceList(config.load({})))
    store.open()
    position = store.position("log")
    for start in range(0, len(events), 100):
        store.apply("log", events[start : start + 100], position, position + 1)
        position += 1
    store.close()


def slices(url: str) -> Slices:
    return Slices(databases.connect(url, 100), lambda seconds: False)


def contents(url: str) -> dict[str, int]:
    """How much content each interception has: 6 pieces, if it is whole."""
    counts = {row["id"]: int(row["error_message"] != "") for row in rows(url)}
    for row in [*rows(url, tables.user_prompts), *rows(url, tables.model_thoughts)]:
        counts[row["interception_id"]] += 1
    for row in rows(url, tables.tool_usages):
        has_error = row["invocation_error"] not in ("", "deleted", "not run: deleted")
        counts[row["interception_id"]] += has_error + (row["input"] not in ("", "{}"))
    return counts


def execute(url: str, statement: str, **parameters: Any) -> None:
    with databases.connect(url).connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(sa.text(statement), parameters)
