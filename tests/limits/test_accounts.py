"""Processes that give away parts of a limit by themselves, in any order: a limit is passed by little at most, and
nobody is refused while there is room.
"""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from aibridge_flask import config
from aibridge_flask.limits import changes
from aibridge_flask.limits.accounts import Accounts
from aibridge_flask.limits.claims import Expected, claim, is_enforced, matching
from aibridge_flask.limits.holds import Holds
from aibridge_flask.limits.limiter import asked_by
from aibridge_flask.pricing import PriceList
from aibridge_flask.records import database
from aibridge_flask.records.events import Started
from aibridge_flask.records.store import Store

AMOUNT, HELD, WORKERS = 10_000, 50, 3
LIMIT = {"name": "l", "scope": "everyone", "tokens": AMOUNT, "per": "month"}
STEP = st.tuples(st.integers(0, WORKERS - 1), st.sampled_from(["ask", "ask", "ask", "ask", "apply", "look"]))


class Worker:
    """Of its log, the database has the beginning."""

    def __init__(self, url: str, name: str) -> None:
        engine = database.connect(url)
        self.name, self.log, self.position = name, list[Started](), 0
        accounts = Accounts(lambda: len(self.log), lambda: self.position)
        self.accounts, self.holds = accounts, Holds(engine, name, accounts)
        self.store = Store(engine, PriceList(config.load({})))
        self.store.open()
        self.store.position(name)
        self.limits = changes.known(engine)

    def ask(self, id: str) -> bool:
        """Returns whether the request is admitted."""
        started = Started(id, "ann", datetime.now(UTC), model="m", credential_kind="centralized")
        asked = asked_by(started)
        made = claim(id, matching(self.limits, asked), asked, Expected(HELD, 0))
        if self.accounts.take(made):
            self.log.append(replace(started, holds=made.holds))
            return True
        self.log.append(started)
        return not is_enforced(self.holds.admit([made])[0].refused)

    def apply(self) -> None:
        if self.position < len(self.log):
            self.store.apply(self.name, self.log[self.position :], self.position, len(self.log))
            self.position = len(self.log)

    def close(self) -> None:
        self.holds.close()
        self.store.close()


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(STEP, min_size=250, max_size=400))
def test_several_processes(migrated_sqlite: Path, tmp_path: Path, steps: list[tuple[int, str]]) -> None:
    path = shutil.copy(migrated_sqlite, tmp_path / "limits.db")
    url = f"sqlite:///{path}"
    changes.add(database.connect(url), config.load({"limit": [LIMIT]}).limit[0], "root")
    workers = [Worker(url, f"w{number}") for number in range(WORKERS)]
    used = 0
    for number, (worker, step) in enumerate(steps):
        if step == "apply":
            workers[worker].apply()
        elif step == "look":
            workers[worker].holds.look()
        elif workers[worker].ask(f"i{number}"):
            used += HELD
        else:
            assert used + HELD > AMOUNT
    for each in workers:
        each.close()
    assert used <= AMOUNT * (1 + WORKERS / 100)
