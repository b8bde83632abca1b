"""The dashboard's sums, read as a page has them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from threading import get_ident
from typing import Any

import pytest
from sqlalchemy import Engine, event

from aibridge_flask.model import Usage
from tests.support.history import History
from tests.support.people import Person

DAY = datetime(2026, 11, 2, 9, tzinfo=UTC)
PERIOD = {"started_after": "2026-11-01", "started_before": "2026-11-05"}
_TIP = re.compile(r"<title>(\d+ Nov)\n(.*?)</title>", re.DOTALL)


@pytest.fixture
def team(history: History) -> History:
    """Ten people, of whom some have asked on each of three days: the first person most."""
    for number in range(10):
        for day in range(3 if number % 3 else 2):
            tokens = Usage(input_tokens=1000 * (20 - number) + day, output_tokens=0)
            history.add(f"person{number}", DAY + timedelta(days=day), usage=tokens)
    return history


def tips(page: str) -> dict[str, dict[str, str]]:
    """Returns what the first chart's columns show, by the day."""
    found: dict[str, dict[str, str]] = {}
    for label, text in _TIP.findall(page):
        found.setdefault(label, dict(line.rsplit(": ", 1) for line in text.splitlines() if ": " in line))
    return found


def test_a_chart_has_the_largest_and_the_rest_as_one(root: Person, team: History) -> None:
    page = root.get("/ui/spend", query_string={"group_by": "initiator", "amount": "tokens", **PERIOD}).text
    of_days = tips(page)
    assert list(of_days) == ["1 Nov", "2 Nov", "3 Nov", "4 Nov"]
    assert list(of_days["2 Nov"]) == [*(f"person{number}" for number in (1, 2, 4, 5, 0, 7, 8)), "other"]
    rest = {"2 Nov": "42.0 k", "3 Nov": "42.0 k", "4 Nov": "0"}
    assert {day: shown.get("other", "0") for day, shown in of_days.items() if day in rest} == rest


@pytest.mark.parametrize("path", ["/ui/", "/ui/spend?group_by=initiator,model", "/ui/sessions"])
def test_a_page_is_read_on_one_connection(
    root: Person, team: History, opened: list[int], asked: list[int], path: str
) -> None:
    root.get(path)
    opened.clear(), asked.clear()
    assert root.get(path).status_code == 200
    assert opened.count(asked[0]) == 1


@pytest.fixture
def opened() -> Iterator[list[int]]:
    """The threads that have opened a connection."""
    yield from _noticed("connect")


@pytest.fixture
def asked() -> Iterator[list[int]]:
    """The threads that have asked for what pages show."""
    yield from _noticed("before_cursor_execute", ("sessions", "usage_hourly", "totals_hourly"))


def _noticed(name: str, words: tuple[str, ...] = ()) -> Iterator[list[int]]:
    threads: list[int] = []

    def notice(*about: Any) -> None:
        if not words or any(word in str(about[2]) for word in words):
            threads.append(get_ident())

    event.listen(Engine, name, notice)
    yield threads
    event.remove(Engine, name, notice)
