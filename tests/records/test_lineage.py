"""Conversations are linked whichever interception is applied first."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic

import pytest
import sqlalchemy as sa

from aibridge_flask import config
from aibridge_flask.model import new_id
from aibridge_flask.pricing import PriceList
from aibridge_flask.records import database as databases
from aibridge_flask.records.events import Event, Started, ToolUsage
from aibridge_flask.records.recorder import Recorder
from aibridge_flask.records.store import Store
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
    id: str,
    minute: int,
    answers: str = "",
    calls: str = "",
    actor: str = "ann",
    session: str = "",
    agent: str = "",
) -> tuple[Event, ...]:
    at = BEGIN + timedelta(minutes=minute)
    start = Started(
        id, actor, at, correlating_tool_call_id=answers, client_session_id=session, agent_id=agent
    )
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


def conversation(
    name: str, minute: int, call: str, pause: int = 1, **members: str
) -> list[tuple[Event, ...]]:
    """A question whose answer calls a tool, and the result, for which the answer calls the next."""
    return [
        interception(f"{name} asks", minute, calls=f"{call}0", **members),  # type: ignore[arg-type]
        interception(f"{name} tells", minute + pause, f"{call}0", f"{call}1", **members),  # type: ignore[arg-type]
        interception(f"{name} ends", minute + 2 * pause, f"{call}1", **members),  # type: ignore[arg-type]
    ]


def parents(url: str, name: str) -> list[str | None]:
    found = links(url)
    return [found[f"{name} {part}"][0] for part in ("asks", "tells", "ends")]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"session": "a"}, {"session": "b"}),
        ({"session": "a"}, {}),
        ({"session": "a", "agent": "x"}, {"session": "a", "agent": "y"}),
        ({"session": "a", "agent": "x"}, {"session": "a"}),
        ({"agent": "x"}, {}),
    ],
)
def test_numbered_calls_link_within_a_conversation(
    recorder: Recorder, database_url: str, order: int, one: dict[str, str], other: dict[str, str]
) -> None:
    """The conversations run at the same time, and each numbers its calls from 0."""
    both = [*conversation("one", 0, "Bash:", 2, **one), *conversation("other", 1, "Bash:", 2, **other)]
    for events in both[::order]:
        recorder.record(*events)
        wait_until(lambda: is_applied(recorder))
    assert parents(database_url, "one") == [None, "one asks", "one tells"]
    assert parents(database_url, "other") == [None, "other asks", "other tells"]


def test_numbered_calls_without_a_session_link_if_one_is_open(recorder: Recorder, database_url: str) -> None:
    """One conversation after the other."""
    for events in [*conversation("one", 0, "call_"), *conversation("other", 5, "call_")]:
        recorder.record(*events)
    wait_until(lambda: is_applied(recorder))
    assert parents(database_url, "one") == [None, "one asks", "one tells"]
    assert parents(database_url, "other") == [None, "other asks", "other tells"]


@pytest.mark.parametrize("call", ["Bash:", "functions.Bash:", "call_", ""])
def test_numbered_calls_of_two_conversations_without_a_session_do_not_link(
    recorder: Recorder, database_url: str, call: str
) -> None:
    """Both are open: nothing says which one is answered."""
    one, other = conversation("one", 0, call, 2), conversation("other", 1, call, 2)
    for pair in zip(one, other, strict=True):
        recorder.record(*pair[0], *pair[1])
    wait_until(lambda: is_applied(recorder))
    assert parents(database_url, "one")[1] is parents(database_url, "other")[1] is None


def test_each_answer_may_call_the_same_number_again(recorder: Recorder, database_url: str) -> None:
    for n in range(4):
        recorder.record(*interception(f"turn {n}", n, answers="call_0" if n else "", calls="call_0"))
    wait_until(lambda: is_applied(recorder))
    assert [links(database_url)[f"turn {n}"][0] for n in range(4)] == [None, "turn 0", "turn 1", "turn 2"]


MANY = 30_000
_NUMBERS = "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :many) INSERT INTO "
_INTERCEPTIONS = (
    "interceptions (id, initiator_id, metadata, streaming, started_at, correlating_tool_call_id)"
    " SELECT :actor || n, :actor, '{}', false, :moment, :answers FROM numbers"
)
_CALLS = (
    "tool_usages (interception_id, turn, position, tool_call_id, injected, created_at)"
    " SELECT :actor || n, 0, 0, 'call_0', false, :moment FROM numbers"
)


def insert_many(url: str, kind: str, actor: str, minute: int) -> None:
    """Inserts interceptions that answer `call_0`, or those that call it."""
    moment = (
        str(BEGIN + timedelta(minutes=minute)) if "postgresql" in url else f"2026-01-01 00:{minute:02}:00"
    )
    values = {
        "many": MANY,
        "actor": actor,
        "moment": moment,
        "answers": "call_0" if kind == "waiting" else "",
    }
    with databases.connect(url).execution_options(writes=True).begin() as connection:
        connection.execute(sa.text(_NUMBERS + _INTERCEPTIONS), values)
        if kind == "calling":
            connection.execute(sa.text(_NUMBERS + _CALLS), values)
        connection.execute(sa.text("ANALYZE"))


class Writer:
    """What one worker writes, in batches."""

    def __init__(self, url: str) -> None:
        self._store, self._log, self._position = (
            Store(databases.connect(url), PriceList(config.load({}))),
            new_id(),
            0,
        )
        self._store.open()
        self._store.position(self._log)

    def apply(self, *events: Event) -> float:
        """Returns the time that it took, in seconds."""
        begun = monotonic()
        self._store.apply(self._log, events, self._position, self._position + 1)
        self._position += 1
        return monotonic() - begun

    def close(self) -> None:
        self._store.close()


@pytest.fixture
def writers(database_url: str) -> Iterator[list[Writer]]:
    writers = [Writer(database_url), Writer(database_url)]
    yield writers
    for writer in writers:
        writer.close()


@pytest.mark.parametrize("kind", ["waiting", "calling"])
@pytest.mark.parametrize("actor", ["bob", "ann"])
@pytest.mark.parametrize("minute", [1, 30])
def test_an_id_that_recurs_costs_no_more(
    writers: list[Writer], database_url: str, kind: str, actor: str, minute: int
) -> None:
    insert_many(database_url, kind, actor, minute)
    writer = writers[0]
    seconds = [
        writer.apply(
            *interception(f"parent {n}", 10, calls="call_0", session="s"),
            *interception(f"child {n}", 11, answers="call_0", session="s"),
        )
        for n in range(5)
    ]
    assert min(seconds) < 0.1
    newest = [found[0] for id, found in links(database_url).items() if id.startswith("child")]
    assert None not in newest


@pytest.mark.parametrize("actor", ["bob", "ann"])
def test_a_call_whose_id_recurs_finds_its_child(writers: list[Writer], database_url: str, actor: str) -> None:
    insert_many(database_url, "waiting", actor, 1)
    writers[0].apply(*interception("child", 11, answers="call_0", session="s"))
    writers[0].apply(*interception("parent", 10, calls="call_0", session="s"))
    assert links(database_url)["child"] == ("parent", "parent")


def write_at_the_same_time(writers: list[Writer], *work: list[tuple[Event, ...]]) -> None:
    """Each writer applies its batches; all begin the next one together."""
    together = threading.Barrier(len(work))

    def write(writer: Writer, batches: list[tuple[Event, ...]]) -> None:
        for batch in batches:
            together.wait(20)
            writer.apply(*batch)

    threads = [threading.Thread(target=write, args=each) for each in zip(writers, work, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_what_two_workers_write_at_the_same_time_is_linked(writers: list[Writer], database_url: str) -> None:
    pairs = range(100)
    parents = [interception(f"parent {n}", 0, calls=f"call {n}") for n in pairs]
    children = [interception(f"child {n}", 1, answers=f"call {n}") for n in pairs]
    write_at_the_same_time(writers, parents, children)
    found = links(database_url)
    assert [found[f"child {n}"] for n in pairs] == [(f"parent {n}", f"parent {n}") for n in pairs]


def test_a_root_and_a_leaf_that_arrive_at_the_same_time_are_one_thread(
    writers: list[Writer], database_url: str
) -> None:
    """What is between them is there before; it is linked to the one while the other is linked to it."""
    threads = range(100)
    for n in threads:
        writers[0].apply(*interception(f"middle {n}", 1, answers=f"call {n}", calls=f"further {n}"))

    roots = [interception(f"root {n}", 0, calls=f"call {n}") for n in threads]
    leaves = [interception(f"leaf {n}", 2, answers=f"further {n}") for n in threads]
    write_at_the_same_time(writers, roots, leaves)
    found = links(database_url)
    assert [found[f"leaf {n}"] for n in threads] == [(f"middle {n}", f"root {n}") for n in threads]


def test_batches_with_the_same_ids_in_another_order_do_not_block_each_other(
    writers: list[Writer], database_url: str
) -> None:
    ids = [f"call {n}" for n in range(20)]
    batches = [
        [event for n, id in enumerate(order) for event in interception(f"{name} {n}", 0, answers=id)]
        for name, order in (("one", ids), ("other", ids[::-1]))
    ]
    threads = [
        threading.Thread(target=writer.apply, args=batch)
        for writer, batch in zip(writers, batches, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(links(database_url)) == 40
