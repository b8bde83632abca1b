"""The ledger against a model in memory: what is spent and held is what the interceptions say, whatever happens."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from aibridge_flask import config
from aibridge_flask.limits import changes, period
from aibridge_flask.limits.accounts import Accounts
from aibridge_flask.limits.claims import Expected, claim, matching
from aibridge_flask.limits.holds import Holds
from aibridge_flask.limits.limiter import asked_by
from aibridge_flask.model import Asked, Usage
from aibridge_flask.pricing import PriceList
from aibridge_flask.records import database as databases
from aibridge_flask.records import sum_tables, tables
from aibridge_flask.records.events import Ended, Started, TokenUsage
from aibridge_flask.records.repricing import Repricing, Selection
from aibridge_flask.records.store import Store
from tests.support.records import rows

NOW = datetime.now(UTC)
PEOPLE = {"ann": ("blue", "red"), "bob": ("red",), "eve": ()}
SCOPES: tuple[Any, ...] = (
    "everyone", {"actor": "ann"}, {"actor": "*"}, {"group": "red"}, {"group": "red", "shared": True}, {"session": "*"},
)  # fmt: skip
SCOPE, UNIT = st.sampled_from(SCOPES), st.sampled_from(["usd", "tokens", "requests"])
PERIOD = st.sampled_from(["day", "hour", "month", "total"])


def prices(input: float = 1.0) -> PriceList:
    return PriceList(config.load({"prices": {"m*": {"input": input, "output": 10.0}}}))


class Interception:
    """What the model knows of one."""

    def __init__(self, started: Started, expected: int) -> None:
        self.started, self.expected = started, expected
        self.held: dict[str, int] = {}
        self.end: Ended | None = None
        self.is_closed = False


class Machine(RuleBasedStateMachine):
    """Starts, ends, amended ends, kills, replays, new prices and changed limits, in any order."""

    template: Path
    folder: Path

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        """Some limits and interceptions are there from the beginning: rules are left out at random."""
        path = self.folder / f"{datetime.now(UTC).timestamp()}.db"
        shutil.copy(self.template, path)
        self.engine = databases.connect(f"sqlite:///{path}")
        self.path, self.input_price = path, 1.0
        self.store, self.position = Store(self.engine, prices()), 0
        self.store.open()
        self.store.position("log")
        self.holds = Holds(self.engine, "log", Accounts(lambda: 0, lambda: 0))
        self.all: list[Interception] = []
        for name in "ab":
            self.put(name, *map(data.draw, (SCOPE, UNIT, PERIOD)))
        for who, session in (("ann", "s1"), ("bob", "s1"), ("ann", "")):
            self.start(who, session, True, False, 20)
        self.end(data, 5, True)

    def apply(self, *events: Any) -> None:
        self.store.apply("log", events, self.position, self.position + 1)
        self.position += 1

    @rule(
        who=st.sampled_from(sorted(PEOPLE)),
        session=st.sampled_from(["", "s1", "s2"]),
        is_recorded=st.booleans(),
        is_by_log=st.booleans(),
        tokens=st.integers(1, 90),
    )
    def start(self, who: str, session: str, is_recorded: bool, is_by_log: bool, tokens: int) -> None:
        """What it holds is written before its start, or with it."""
        id, at = f"i{len(self.all)}", NOW
        started = Started(
            id,
            who,
            at,
            model="m",
            client_session_id=session,
            groups=PEOPLE[who],
            credential_kind="centralized",
        )
        made = claim(
            id,
            matching(changes.known(self.engine), asked_by(started)),
            asked_by(started),
            Expected(tokens, tokens * 10),
        )
        is_by_log = is_by_log and is_recorded
        started = replace(started, holds=made.holds if is_by_log else ())
        found = Interception(started, tokens)
        if is_by_log or not self.holds.admit([made])[0].is_refused:
            found.held = {each.limit.name: each.held for each in made.charges}
        self.all.append(found)
        if is_recorded:
            self.apply(started)

    def open(self) -> list[Interception]:
        return [each for each in self.all if not each.is_closed]

    @precondition(lambda self: self.all)
    @rule(data=st.data(), output=st.integers(0, 90), is_sent=st.booleans())
    def end(self, data: st.DataObject, output: int, is_sent: bool) -> None:
        """An end, or an amended one; also of one that a dead worker's successor has closed."""
        found = data.draw(st.sampled_from(self.all))
        usage = TokenUsage(found.started.id, 0, "r", "m", Usage(10, output), NOW, asked=Asked("m"))
        is_sent = is_sent or bool(found.end and found.end.usages)  # what was told once stays told
        usages = (usage,) if is_sent else ()
        found.end = Ended(
            found.started.id,
            NOW + timedelta(seconds=1),
            status_code=200,
            usages=usages,
            attempts=int(is_sent),
        )
        found.is_closed = True
        self.apply(found.started, *usages, found.end)

    @precondition(lambda self: self.position)
    @rule()
    def replay(self) -> None:
        """The database went back: everything comes again."""
        for found in self.all:
            if found.end:
                self.apply(found.started, *found.end.usages, found.end)

    @rule()
    def kill(self) -> None:
        known = {row["id"] for row in rows(str(self.engine.url), tables.interceptions)}
        self.store.interrupt_worker("log")
        for found in self.open():
            found.held = {}
            found.is_closed = found.started.id in known

    @rule(price=st.sampled_from([1.0, 3.0]))
    def reprice(self, price: float) -> None:
        self.input_price = price
        self.store._prices = prices(price)
        self.store._writer._prices = prices(price)
        list(Repricing(self.engine, prices(price)).run(Selection()))

    @rule(
        name=st.sampled_from("ab"),
        scope=SCOPE,
        unit=UNIT,
        per=PERIOD,
    )
    def put(self, name: str, scope: Any, unit: str, per: str) -> None:
        """Makes a limit, or changes it in mid-period; who is under way goes on holding as before."""
        wanted = config.load({"limit": [{"name": name, "scope": scope, unit: 500, "per": per}]}).limit[0]
        known = {limit.name: limit for limit in changes.known(self.engine)}
        if name in known:
            changes.change(self.engine, known[name].id, wanted, "root")
        else:
            changes.add(self.engine, wanted, "root")

    @rule(name=st.sampled_from("ab"))
    def remove(self, name: str) -> None:
        for limit in changes.known(self.engine):
            if limit.name == name:
                changes.end(self.engine, limit.id, "root")
                for found in self.all:
                    found.held.pop(name, None)

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        try:
            self.check()
        finally:
            self.store.close()
            self.holds.close()
            self.path.unlink()

    def check(self) -> None:
        for limit in changes.known(self.engine):
            spent: Counter[str] = Counter()
            for found in self.all:
                if found.is_closed:
                    usage = (
                        sum((each.usage for each in found.end.usages), start=Totals())
                        if found.end
                        else Totals()
                    )
                    for subject in limit.subjects(asked_by(found.started)):
                        spent[subject] += limit.amount(
                            found.end.attempts if found.end else 1,
                            usage.tokens,
                            usage.micros(self.input_price),
                        )
            start = period.start(limit.settings.per, int(datetime.now(UTC).timestamp()))
            counted = {
                row["subject"]: 0
                for row in rows(str(self.engine.url), sum_tables.ledger)
                if row["limit_name"] == limit.name
            }
            for row in rows(str(self.engine.url), sum_tables.ledger):
                if row["limit_name"] == limit.name and row["bucket"] >= start:
                    counted[row["subject"]] += row["spent"]
            assert {of: n for of, n in counted.items() if n} == {of: n for of, n in spent.items() if n}
        held = {
            (row["interception_id"], row["limit_name"]): row["held"]
            for row in rows(str(self.engine.url), sum_tables.holds)
        }
        assert held == {
            (each.started.id, name): amount for each in self.open() for name, amount in each.held.items()
        }


class Totals:
    def __init__(self, input: int = 0, output: int = 0) -> None:
        self.input, self.output = input, output

    def __add__(self, usage: Usage) -> Totals:
        return Totals(self.input + usage.input_tokens, self.output + usage.output_tokens)

    @property
    def tokens(self) -> int:
        return self.input + self.output

    def micros(self, input_price: float) -> int:
        return int(self.input * input_price + self.output * 10)


def test_random_schedules(migrated_sqlite: Path, tmp_path: Path) -> None:
    Machine.template, Machine.folder = migrated_sqlite, tmp_path
    examples = int(os.environ.get("SCHEDULES", "25"))
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_an_amended_end_beside_a_new_one_takes_nothing_from_it(migrated_sqlite: Path, tmp_path: Path) -> None:
    """Both count alike in the same account, in one transaction."""
    shutil.copy(migrated_sqlite, tmp_path / "ledger.db")
    engine = databases.connect(f"sqlite:///{tmp_path}/ledger.db")
    store = Store(engine, prices())
    store.open()
    store.position("log")
    changes.add(
        engine,
        config.load({"limit": [{"name": "l", "scope": "everyone", "requests": 9, "per": "month"}]}).limit[0],
        "root",
    )
    first, second = (Started(id, "ann", NOW, model="m", credential_kind="centralized") for id in "ab")
    end = Ended("a", NOW, status_code=200, attempts=1)
    store.apply("log", [first, end], 0, 1)
    store.apply("log", [second, replace(end, id="b"), replace(end, wire_exact=True)], 1, 2)
    (row,) = rows(str(engine.url), sum_tables.ledger)
    assert row["spent"] == 2
    store.close()
