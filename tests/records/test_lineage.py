"""Conversations are linked whichever interception is applied first."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from aibridge_flask.records.events import Event, Started, ToolUsage
from aibridge_flask.records.recorder import Recorder
from tests.conftest import BOTH_DATABASES
from tests.support.records import is_applied, rows, settings
from tests.support.server import wait_until

pytestmark = BOTH_DATABASES
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def recorder(database_url: str, tmp_path: Path) -> Iterator[Recorder]:
    recorder = Recorder(settings(database_url, spool_dir=str(tmp_path / "spool")))
    yield recorder
    recorder.close()


def links(url: str) -> dict[str, tuple[str | None, str | None]]:
    return {row["id"]: (row["thread_parent_id"], row["thread_root_id"]) for row in rows(url)}


def interception(
    id: str, minute: int, answers: str = "", calls: str = "", actor: str = "ann", session: str = ""
) -> tuple[Event, ...]:
    at = BEGIN + timedelta(minutes=minute)
    start = Started(id, actor, at, correlating_tool_call_id=answers, client_session_id=session)
    return (start, *([ToolUsage(id, 0, 0, "r", calls, "", "Read", "", at)] if calls else []))


THREAD = (
    interception("first", 0, calls="call 1"),
    interception("second", 1, answers="call 1", calls="call 2"),
    interception("third", 2, answers="call 2"),
)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_thread_is_linked_in_any_order(
    recorder: Recorder, database_url: str, order: tuple[int, ...]
) -> None:
    for place in order:
        recorder.record(*THREAD[place])
        wait_until(lambda: is_applied(recorder))
    assert links(database_url) == {
        "first": (None, None),
        "second": ("first", "first"),
        "third": ("second", "first"),
    }


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize(
    ("parent", "child", "linked"),
    [
        ({"actor": "bob"}, {}, False),
        ({"session": "a"}, {"session": "b"}, False),
        ({"session": "a"}, {"session": "a"}, True),
        ({"session": "a"}, {}, True),
        ({}, {"session": "b"}, True),
    ],
)
def test_only_what_belongs_together_is_linked(
    recorder: Recorder,
    database_url: str,
    order: tuple[int, ...],
    parent: dict[str, str],
    child: dict[str, str],
    linked: bool,
) -> None:
    both = (
        interception("parent", 0, calls="call", **parent),  # type: ignore[arg-type]
        interception("child", 1, answers="call", **child),  # type: ignore[arg-type]
    )
    for place in order:
        recorder.record(*both[place])
    wait_until(lambda: is_applied(recorder))
    assert links(database_url)["child"] == (("parent", "parent") if linked else (None, None))


def test_a_call_after_the_answer_is_no_parent(recorder: Recorder, database_url: str) -> None:
    recorder.record(*interception("later", 5, calls="call"))
    recorder.record(*interception("earlier", 1, answers="call"))
    wait_until(lambda: is_applied(recorder))
    assert links(database_url)["earlier"] == (None, None)


def test_of_several_parents_the_newest_counts(recorder: Recorder, database_url: str) -> None:
    recorder.record(*interception("original", 0, calls="call"))
    recorder.record(*interception("replayed", 1, calls="call"))
    recorder.record(*interception("child", 2, answers="call"))
    wait_until(lambda: is_applied(recorder))
    assert links(database_url)["child"] == ("replayed", "replayed")
