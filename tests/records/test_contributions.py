"""Sums are exact: every change of an interception adds the new amounts minus the old ones, once."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from aibridge_flask import config
from aibridge_flask.model import Usage
from aibridge_flask.pricing import PriceList
from aibridge_flask.records import database as databases
from aibridge_flask.records.contributions import Change
from aibridge_flask.records.events import Ended, Event, Started, TokenUsage, now
from aibridge_flask.records.store import Store
from tests.conftest import BOTH_DATABASES

pytestmark = BOTH_DATABASES


class Sums:
    """A step that keeps its sums in memory."""

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter()

    def __call__(self, cursor: Any, changes: Sequence[Change]) -> None:
        for change in changes:
            self.totals.update(change.after)
            self.totals.subtract(change.before)


@pytest.fixture
def sums() -> Sums:
    return Sums()


@pytest.fixture
def store(database_url: str, sums: Sums) -> Store:
    store = Store(databases.connect(database_url), PriceList(config.load({})), (sums,))
    store.open()
    store.position("log")
    return store


def interception(id: str, *outputs: int) -> list[Event]:
    usages = [TokenUsage(id, turn, "r", "m", Usage(10, output), now()) for turn, output in enumerate(outputs)]
    return [Started(id, "ann", now()), *usages]


def test_changes_add_the_difference(store: Store, sums: Sums) -> None:
    store.apply("log", interception("a", 5), 0, 1)
    assert (sums.totals["requests"], sums.totals["output_tokens"], sums.totals["ended"]) == (1, 5, 0)
    store.apply("log", [TokenUsage("a", 0, "r", "m", Usage(10, 8), now())], 1, 2)
    assert (sums.totals["requests"], sums.totals["output_tokens"]) == (1, 8)
    store.interrupt_worker("log")
    assert (sums.totals["ended"], sums.totals["errors"]) == (1, 1)
    store.apply("log", [Ended("a", now(), status_code=200)], 2, 3)
    assert (sums.totals["requests"], sums.totals["ended"], sums.totals["errors"]) == (1, 1, 0)


def test_replays_add_nothing(store: Store, sums: Sums) -> None:
    events = [*interception("a", 5, 7), Ended("a", now(), error_type="timeout"), *interception("b", 1)]
    store.apply("log", events, 0, 1)
    once = dict(sums.totals)
    for position in range(1, 5):
        store.apply("log", random.Random(position).choices(events, k=3), position, position + 1)
    store.apply("log", events, 5, 6)
    assert dict(sums.totals) == once
    assert (once["requests"], once["input_tokens"], once["output_tokens"], once["errors"]) == (2, 30, 13, 1)
