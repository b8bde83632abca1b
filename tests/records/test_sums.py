"""Sums are exact: every change of an interception adds the new amounts minus the old ones, once."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from aibridge_flask import config
from aibridge_flask.model import Asked, Usage
from aibridge_flask.pricing import PriceList
from aibridge_flask.records import database as databases
from aibridge_flask.records import sum_tables, tables
from aibridge_flask.records.events import Ended, Event, Prompt, Started, TokenUsage, ToolUsage
from aibridge_flask.records.recorder import Recorder
from aibridge_flask.records.repricing import Repricing, Selection
from aibridge_flask.records.store import Store
from aibridge_flask.records.sum_check import Comparison, SumCheck
from tests.conftest import BOTH_DATABASES
from tests.support.records import rows, settings
from tests.support.server import wait_until

pytestmark = BOTH_DATABASES
NOON = datetime(2026, 3, 1, 12, 10, tzinfo=UTC)
PRICE = {"input": 1.0, "output": 10.0, "cache_read": 0.1, "cache_write": 2.0}


def prices(**own: Any) -> PriceList:
    return PriceList(config.load({"prices": {"m": {**PRICE, **own}}}))


class Recorded:
    """A database, and the position up to which one log is applied."""

    def __init__(self, url: str, log: str = "log") -> None:
        self.url, self.engine, self.position, self.log = url, databases.connect(url), 0, log
        self.store = Store(self.engine, prices())
        self.store.open()
        self.store.position(log)

    def apply(self, *events: Event) -> None:
        self.store.apply(self.log, events, self.position, self.position + 1)
        self.position += 1

    def compare(self) -> Comparison:
        return SumCheck(self.engine).compare()

    def is_exact(self) -> bool:
        found = self.compare()
        return not found.differences and not found.unsummed

    def total(self, table: sa.Table, column: str) -> int:
        return sum(row[column] for row in rows(self.url, table))


@pytest.fixture
def recorded(database_url: str) -> Iterator[Recorded]:
    recorded = Recorded(database_url)
    yield recorded
    recorded.store.close()


def started(id: str, minutes: float = 0, actor: str = "ann", **members: Any) -> Started:
    return Started(id, actor, NOON + timedelta(minutes=minutes), model="m", **members)


def usage(id: str, output: int, turn: int = 0, model: str = "m") -> TokenUsage:
    asked = Asked(model, "anthropic", "anthropic")
    return TokenUsage(id, turn, "r", model, Usage(10, output, 100, 20), NOON, asked=asked)


def ended(id: str, *usages: TokenUsage, minutes: float = 1, **members: Any) -> Ended:
    times = {"first_byte_ms": 120.0, "duration_ms": 4000.0} | members
    return Ended(id, NOON + timedelta(minutes=minutes), status_code=200, usages=usages, **times)


def call(id: str, tool: str = "Read", call_id: str = "call_a8Fk", **members: Any) -> ToolUsage:
    return ToolUsage(id, 0, 0, "r", call_id, "", tool, "{}", NOON, **members)


def test_an_interception_counts_in_its_session_at_once_and_in_usage_at_its_end(recorded: Recorded) -> None:
    recorded.apply(started("a"), usage("a", 5))
    assert recorded.total(sum_tables.sessions, "output_tokens") == 5
    assert rows(recorded.url, sum_tables.usage_hourly) == []
    recorded.apply(usage("a", 8), call("a"), ended("a", usage("a", 8)))
    (session,) = rows(recorded.url, sum_tables.sessions)
    (hour,) = rows(recorded.url, sum_tables.usage_hourly)
    assert (session["requests"], session["ended"], session["threads"]) == (1, 1, 1)
    assert (hour["hour"], hour["initiator_id"], hour["model"]) == (NOON.replace(minute=0), "ann", "m")
    names = ("requests", "errors", "output_tokens", "cache_read_input_tokens", "unpriced_requests")
    assert [hour[name] for name in names] == [1, 0, 8, 100, 0]
    assert (hour["first_byte_2"], hour["duration_4"]) == (1, 1)
    (tool,) = rows(recorded.url, sum_tables.tools_hourly)
    assert (tool["usage_id"], tool["tool"], tool["calls"], tool["failures"]) == (hour["id"], "Read", 1, 0)
    assert recorded.is_exact()


def test_tables_of_coarser_sums_that_are_new_have_what_stands_in_the_others(recorded: Recorded) -> None:
    for number, actor in enumerate(("ann", "bob", "ann")):
        id = f"i{number}"
        recorded.apply(started(id, 9 * 60 * number, actor), usage(id, 5), ended(id, usage(id, 5)))
    new = (sum_tables.people_daily, sum_tables.totals_hourly)
    counts = [len(rows(recorded.url, table)) for table in new]
    with recorded.engine.connect().execution_options(writes=True) as connection, connection.begin():
        for table in new:
            table.drop(connection)
        databases.set_info(connection, "version", "10")
    databases.migrate(recorded.engine)
    assert [len(rows(recorded.url, table)) for table in new] == counts == [3, 3]
    assert recorded.is_exact()


def test_money_is_split_by_what_it_was_paid_for(recorded: Recorded) -> None:
    recorded.apply(started("a"), usage("a", 5), ended("a", usage("a", 5)))
    (hour,) = rows(recorded.url, sum_tables.usage_hourly)
    parts = [hour[name] for name in ("cost_micros", *sum_tables.COST_PARTS, "cache_saved_micros")]
    assert parts == [10 + 50 + 10 + 40, 50, 10, 40, 0, 90 - 20]


ASKED = Asked("m", "openai", "openai")


def interrupted(recorded: Recorded, *events: Event, **members: Any) -> sa.RowMapping:
    """The row of one whose worker died after these events."""
    started = Started("a", "ann", NOON, provider="openai", provider_name="openai", model="m", **members)
    recorded.apply(started, *events)
    assert recorded.store.interrupt_worker("log") == 1
    assert recorded.is_exact()
    (row,) = rows(recorded.url)
    return row


def test_the_input_of_an_interrupted_interception_counts_where_nothing_was_told(recorded: Recorded) -> None:
    row = interrupted(recorded, estimated_input=500)
    costs = (row["cost_micros"], row["cost_status"], row["price_source"])
    assert costs == (500 * 1, "estimated", "settings")
    (usage,) = rows(recorded.url, tables.token_usages)
    assert (usage["input_tokens"], usage["output_tokens"], usage["cost_micros"]) == (500, 0, 500)
    (hour,) = rows(recorded.url, sum_tables.usage_hourly)
    assert (hour["input_tokens"], hour["cost_micros"], hour["unpriced_requests"]) == (500, 500, 0)
    assert recorded.store.interrupt_worker("log") == 0
    repriced = [*Repricing(recorded.engine, prices(input=3.0)).run(Selection())]
    assert [(each.before, each.after) for each in repriced] == [(500, 1500)]
    (row,) = rows(recorded.url)
    assert (row["cost_micros"], row["cost_status"], recorded.is_exact()) == (1500, "estimated", True)


@pytest.mark.parametrize(("estimate", "usages"), [(500, [(7, 5)]), (0, [(7, 5)]), (0, [])])
def test_what_was_told_counts_instead_of_an_estimate(
    recorded: Recorded, estimate: int, usages: list[tuple[int, int]]
) -> None:
    told = [TokenUsage("a", 0, "r", "m", Usage(*counts), NOON, asked=ASKED) for counts in usages]
    row = interrupted(recorded, *told, estimated_input=estimate)
    kept = rows(recorded.url, tables.token_usages)
    assert [(usage["input_tokens"], usage["output_tokens"]) for usage in kept] == usages
    assert (row["cost_micros"], row["cost_status"]) == ((7 + 50, "estimated") if usages else (None, ""))


def test_an_interrupted_model_without_a_price_is_unpriced_until_it_has_one(recorded: Recorded) -> None:
    nothing = Store(recorded.engine, PriceList(config.load({})))
    nothing.open()
    recorded.store.close()
    recorded.store = nothing
    row = interrupted(recorded, estimated_input=500)
    assert (row["cost_micros"], row["cost_status"]) == (None, "unpriced")
    assert len([*Repricing(recorded.engine, prices()).run(Selection(only_unpriced=True))]) == 1
    (row,) = rows(recorded.url)
    assert (row["cost_micros"], row["cost_status"], recorded.is_exact()) == (500, "estimated", True)


@pytest.mark.parametrize(("usage", "cost"), [((), None), ((Usage(7, 5),), 7 + 50)], ids=["none", "told"])
@pytest.mark.parametrize("is_replayed", [False, True])
def test_a_late_end_takes_the_place_of_an_estimate(
    recorded: Recorded, usage: tuple[Usage, ...], cost: int | None, is_replayed: bool
) -> None:
    interrupted(recorded, estimated_input=500)
    told = tuple(TokenUsage("a", 0, "r", "m", each, NOON, asked=ASKED) for each in usage)
    total = usage[0] if usage else Usage()
    end = Ended("a", NOON + timedelta(seconds=2), 200, usage=total, usages=told)
    for _ in range(1 + is_replayed):
        recorded.apply(*told, end)
    (row,) = rows(recorded.url)
    assert (row["error_type"], row["cost_micros"], recorded.is_exact()) == ("", cost, True)
    kept = rows(recorded.url, tables.token_usages)
    assert [(each["input_tokens"], each["output_tokens"]) for each in kept] == [(7, 5)] * len(usage)
    assert recorded.total(sum_tables.usage_hourly, "input_tokens") == total.input_tokens


def test_an_interrupted_interception_that_ends_after_all_is_corrected(recorded: Recorded) -> None:
    recorded.apply(started("a"), usage("a", 5))
    recorded.store.interrupt_worker("log")
    (hour,) = rows(recorded.url, sum_tables.usage_hourly)
    assert (hour["error_type"], hour["errors"], hour["output_tokens"]) == ("interrupted", 1, 5)
    recorded.apply(usage("a", 9), ended("a", usage("a", 9)))
    (hour,) = rows(recorded.url, sum_tables.usage_hourly)
    assert (hour["error_type"], hour["errors"], hour["output_tokens"]) == ("", 0, 9)
    assert recorded.is_exact()


def test_days_are_summed_for_all_people_together(recorded: Recorded) -> None:
    for id, actor, minutes in (("a", "ann", 0), ("b", "bob", 300), ("c", "ann", 24 * 60)):
        recorded.apply(
            started(id, minutes, actor), call(id, call_id=f"call_{id}Q7w"), ended(id, usage(id, 5))
        )
    days = rows(recorded.url, sum_tables.usage_daily)
    assert sorted((row["day"].day, row["requests"]) for row in days) == [(1, 2), (2, 1)]
    calls = {row["usage_id"]: row["calls"] for row in rows(recorded.url, sum_tables.tools_daily)}
    assert calls == {row["id"]: row["requests"] for row in days}
    recorded.store.interrupt_worker("log")
    recorded.apply(ended("b", usage("b", 5), error_type="timeout"), call("b", "Bash", "call_bQ7w"))
    days = rows(recorded.url, sum_tables.usage_daily)
    assert sorted((row["day"].day, row["error_type"], row["requests"]) for row in days) == [
        *((1, "", 1), (1, "timeout", 1), (2, "", 1)),
    ]
    assert recorded.is_exact()


def test_replays_add_nothing(recorded: Recorded) -> None:
    events = [
        *(started("a"), usage("a", 5), usage("a", 7, turn=1), call("a"), ended("a", error_type="timeout")),
        *(started("b", 70), usage("b", 1)),
    ]
    recorded.apply(*events)
    once = [rows(recorded.url, table) for table in (*SUM_TABLES, tables.interceptions)]
    for seed in range(1, 6):
        recorded.apply(*random.Random(seed).choices(events, k=3))
    recorded.apply(*events)
    assert [rows(recorded.url, table) for table in (*SUM_TABLES, tables.interceptions)] == once
    assert recorded.is_exact()


def test_each_change_of_an_ended_interception_gets_the_next_number(recorded: Recorded) -> None:
    recorded.apply(started("a"), started("b"))
    recorded.apply(ended("b"))
    recorded.apply(ended("a"))
    assert numbers(recorded) == {"a": 4, "b": 3}
    recorded.apply(ended("b", minutes=2))
    assert numbers(recorded) == {"a": 4, "b": 5}


def test_nothing_appears_below_a_number_that_was_seen(database_url: str) -> None:
    """Who reads on from the last number it has seen misses nothing, while two workers write."""
    workers = [Recorded(database_url, log) for log in ("log", "other log")]
    threads = [
        threading.Thread(target=apply_many, args=(worker, name))
        for worker, name in zip(workers, "ab", strict=True)
    ]
    for thread in threads:
        thread.start()
    seen: set[str] = set()
    last, is_over = 0, False
    while not is_over:
        is_over = not any(thread.is_alive() for thread in threads)
        new = {id: seq for id, seq in numbers(workers[0]).items() if seq and id not in seen}
        assert all(seq > last for seq in new.values())
        seen |= new.keys()
        last = max(new.values(), default=last)
    assert len(seen) == 200
    for worker in workers:
        worker.store.close()


def apply_many(recorded: Recorded, name: str) -> None:
    for number in range(0, 100, 5):
        ids = [f"{name}{number + each}" for each in range(5)]
        recorded.apply(*(event for id in ids for event in (started(id), ended(id))))


def numbers(recorded: Recorded) -> dict[str, int]:
    return {row["id"]: row["seq"] for row in rows(recorded.url)}


def test_a_thread_that_gets_its_root_later_is_one_session(recorded: Recorded) -> None:
    recorded.apply(
        started("leaf", 2, correlating_tool_call_id="call_c9Lm"),
        Prompt("leaf", "last", NOON),
        ended("leaf", usage("leaf", 3)),
    )
    recorded.apply(started("middle", 1, correlating_tool_call_id="call_b7Xz"))
    recorded.apply(call("middle", call_id="call_c9Lm"))
    assert len(rows(recorded.url, sum_tables.sessions)) == 1
    recorded.apply(started("root"), Prompt("root", "first", NOON), call("root", call_id="call_b7Xz"))
    (session,) = rows(recorded.url, sum_tables.sessions)
    assert (session["id"], session["requests"], session["threads"]) == ("root", 3, 1)
    assert (session["started_at"], session["prompt_of"]) == (NOON, "leaf")
    assert recorded.is_exact()


def test_a_session_keeps_the_newest_prompt_of_its_user(recorded: Recorded) -> None:
    one = {"client_session_id": "s", "client": "Claude Code"}
    recorded.apply(started("b", 5, **one), Prompt("b", "second", NOON))
    recorded.apply(started("a", 1, **one), Prompt("a", "first", NOON))
    recorded.apply(started("t", 6, kind="title", **one), Prompt("t", "a title for: second", NOON))
    (session,) = rows(recorded.url, sum_tables.sessions)
    assert (session["prompt_of"], session["threads"], session["requests"]) == ("b", 2, 3)


def test_an_actors_groups_are_kept_as_a_set(recorded: Recorded) -> None:
    groups = [("dev",), ("dev", "ops"), ("dev", "ops"), ()]
    for id, names in enumerate(groups):
        recorded.apply(started(f"i{id}", groups=names), ended(f"i{id}"))
    sets = rows(recorded.url, sum_tables.group_sets)
    assert sorted(row["name"] for row in sets) == ["dev", "dev", "ops"]
    assert sorted(row["requests"] for row in rows(recorded.url, sum_tables.usage_hourly)) == [1, 1, 2]


def test_repricing_is_followed(recorded: Recorded) -> None:
    recorded.apply(started("a"), usage("a", 5), ended("a", usage("a", 5)))
    list(Repricing(recorded.engine, prices(output=20.0)).run(Selection()))
    assert recorded.total(sum_tables.usage_hourly, "cost_micros") == 10 + 100 + 10 + 40
    assert recorded.total(sum_tables.sessions, "output_micros") == 100
    assert recorded.is_exact()


@pytest.mark.parametrize("seed", range(3))
def test_sums_are_exact_after_any_order(recorded: Recorded, seed: int) -> None:
    chance = random.Random(seed)
    pending = [events for number in range(25) for events in conversation(chance, number)]
    chance.shuffle(pending)
    for events in pending:
        recorded.apply(*events)
        if chance.random() < 0.2:
            recorded.apply(*chance.choice(pending))
        if chance.random() < 0.1:
            recorded.store.interrupt_worker("log")
    assert recorded.is_exact()
    costs = {row["interception_id"]: row["cost_micros"] for row in rows(recorded.url, tables.token_usages)}
    assert costs == {row["id"]: row["cost_micros"] for row in rows(recorded.url)}


def conversation(chance: random.Random, number: int) -> Sequence[Sequence[Event]]:
    """One interception in pieces; some answer each other's calls, some say their session."""
    id, other = f"i{number}", chance.randrange(25)
    session = {"client_session_id": f"s{number % 3}"} if number % 2 else {}
    answers = {"correlating_tool_call_id": f"call_{other:02}xyzw"} if chance.random() < 0.6 else {}
    actor, answers = chance.choice(["ann", "bob"]), {**answers, "estimated_input": number}
    start = started(id, number * 7, actor, **session, **answers)
    own = usage(id, number)
    error = chance.choice(["", "", "timeout"])
    return (
        [start, Prompt(id, "p", NOON)],
        [start, call(id, chance.choice(["Read", "Bash"]), f"call_{number:02}xyzw")],
        [start, own],
        [start, own, ended(id, own, error_type=error)],
    )


def test_a_check_finds_and_repairs_what_is_wrong(recorded: Recorded) -> None:
    recorded.apply(started("a"), usage("a", 5), call("a"), ended("a", usage("a", 5)))
    recorded.apply(started("b", 70), usage("b", 5), ended("b", usage("b", 5)))
    with recorded.engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(sa.update(sum_tables.usage_hourly).values(requests=7))
        connection.execute(sa.delete(sum_tables.tools_hourly))
        connection.execute(sa.insert(sum_tables.session_usage).values(session_key=1, usage_id=2, requests=3))
        connection.execute(sa.update(tables.token_usages).values(output_tokens=50))
    found = recorded.compare()
    assert sorted((each.table.name, *each.missing.items()) for each in found.differences) == [
        ("session_usage", ("requests", -3)),
        ("tools_hourly", ("calls", 1)),
        ("usage_hourly", ("requests", -6)),
        ("usage_hourly", ("requests", -6)),
    ]
    assert found.unsummed == ("a", "b")
    SumCheck(recorded.engine).repair(found)
    assert recorded.is_exact()
    assert recorded.total(sum_tables.usage_hourly, "output_tokens") == 100


def test_what_the_version_before_has_written_is_summed_beside_the_traffic(
    empty_database_url: str, tmp_path: Path
) -> None:
    """An old table has neither the column nor the index by which its rows are found."""
    engine = databases.connect(empty_database_url)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        databases.upgrade(connection)
        for number in range(120):
            insert = "INSERT INTO interceptions (id, metadata, streaming, started_at, ended_at, cost_micros)"
            values = f"('old{number}', '{{}}', :no, '2026-01-01 00:00:00', '2026-01-01 00:01:00', 7)"
            connection.execute(sa.text(f"{insert} VALUES {values}"), {"no": False})
    recorder = Recorder(settings(empty_database_url, spool_dir=str(tmp_path / "spool")))
    try:
        recorder.record(started("new"))
        wait_until(lambda: len(rows(empty_database_url, sum_tables.sessions)) == 121)
    finally:
        recorder.close()
    (hour,) = [row for row in rows(empty_database_url, sum_tables.usage_hourly) if not row["errors"]]
    assert (hour["requests"], hour["cost_micros"]) == (120, 840)
    assert SumCheck(engine).compare() == Comparison()


def test_what_is_not_known_of_old_costs_is_unknown_and_not_0(empty_database_url: str) -> None:
    """The version before priced interceptions as a whole, and kept no tier."""
    engine = databases.connect(empty_database_url)
    old = {"only": (7, 1), "several": (9, 2), "unknown": (None, 1), "nothing used": (None, 0)}
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        databases.upgrade(connection)
        for id, (cost, count) in old.items():
            insert = "INSERT INTO interceptions (id, metadata, streaming, started_at, ended_at, model, cost_micros)"
            values = "(:id, '{}', :no, '2026-01-01 00:00:00', '2026-01-01 00:01:00', 'm', :cost)"
            row = {"id": id, "no": False, "cost": cost}
            connection.execute(sa.text(f"{insert} VALUES {values}"), row)
            for turn in range(count):
                insert = (
                    "INSERT INTO token_usages (interception_id, turn, input_tokens, metadata, created_at)"
                )
                values = "(:id, :turn, 5, '{}', '2026-01-01 00:00:00')"
                connection.execute(sa.text(f"{insert} VALUES {values}"), {"id": id, "turn": turn})
    databases.migrate(engine)
    store = Store(engine, prices())
    store.open()
    assert store.sum_unsummed(100) == 4
    found = {row["id"]: (row["cost_micros"], row["cost_status"]) for row in rows(empty_database_url)}
    assert found == {
        "only": (7, "priced"),
        "several": (9, "priced"),
        "unknown": (None, "unpriced"),
        "nothing used": (None, ""),
    }
    usages = rows(empty_database_url, tables.token_usages)
    costs = {(row["interception_id"], row["turn"]): row["cost_micros"] for row in usages}
    assert costs == {("only", 0): 7, ("several", 0): None, ("several", 1): None, ("unknown", 0): None}
    assert {(row["service_tier"], row["speed"]) for row in usages} == {("", "")}
    (hour,) = rows(empty_database_url, sum_tables.usage_hourly)
    assert (hour["requests"], hour["cost_micros"], hour["unpriced_requests"]) == (4, 16, 1)
    assert SumCheck(engine).compare() == Comparison()
    repriced = {each.before: each.after for each in Repricing(engine, prices()).run(Selection())}
    assert repriced == {7: 5, 9: 10, None: 5}
    store.close()


SUM_TABLES = (
    sum_tables.usage_hourly,
    sum_tables.sessions,
    sum_tables.session_usage,
    sum_tables.tools_hourly,
    sum_tables.usage_daily,
    sum_tables.tools_daily,
)
