"""Holds what interceptions are expected to spend, in one transaction with the look at what is left."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from math import inf
from time import monotonic
from typing import Any

from msgspec import Struct
from msgspec.json import encode
from msgspec.structs import astuple
from sqlalchemy import Connection, Engine

from ..records.deadlines import DEADLINES
from ..records.statement import Statement
from ..records.sum_tables import limit_notices
from ..waiting import fork_lock
from . import notices
from .accounts import Accounts
from .claims import Charge, Claim, Used, is_enforced, refused
from .definitions import KnownLimits
from .limit import Limit
from .notices import Notice

LOCK_SECONDS = 2.0  # that are waited for a lock
_CALL_SECONDS = 5.0
_MAX_NOTICED = 10_000


class Granted(Struct, frozen=True):
    """The answer to a claim. `used` is that of its charges, in their order, before it.

    `refused` are the charges without room; nothing is held if one of them is of a limit that is enforced.
    """

    used: tuple[Used, ...]
    refused: tuple[Charge, ...] = ()

    @property
    def is_refused(self) -> bool:
        return is_enforced(self.refused)


class Holds:
    """Writes on a connection of its own, for one thread. Each method raises SQLAlchemyError or the driver's
    error; the connection is then to be closed.
    """

    def __init__(self, engine: Engine, worker_id: str, accounts: Accounts) -> None:
        self._engine, self._worker_id, self._accounts = engine, worker_id, accounts
        self._dialect = engine.dialect.name
        mark = "?" if engine.dialect.positional else "%s"
        statements = (_HOLD, _RAISE, _RELEASE, _STEPS)
        self._hold, self._raise, self._release, self._steps = (each.replace("?", mark) for each in statements)
        self._connection: Connection | None = None
        # SQLite's locks in memory would stay locked in a process that is forked meanwhile
        self._fork_guard: Any = fork_lock() if self._dialect == "sqlite" else contextlib.nullcontext()
        self._known = KnownLimits()
        insert = import_module(f"sqlalchemy.dialects.{self._dialect}").insert(limit_notices)
        self._write_notice = Statement(insert.on_conflict_do_nothing(), engine.dialect)
        self._noticed: set[tuple[int, int, int]] = set()
        self.notices: list[Notice] = []  # that are new since somebody has taken them
        self.called_at = inf  # the database, if it has said nothing since

    def close(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with contextlib.suppress(Exception):
                connection.invalidate()
                connection.close()

    def read_limits(self) -> tuple[Limit, ...]:
        with self._transaction() as cursor:
            return self._known.read(cursor)

    def admit(self, claims: Sequence[Claim]) -> list[Granted]:
        """Decides claims in their order, and holds what is granted."""
        starts = {charge.account: charge.start for claim in claims for charge in claim.charges}
        with self._transaction(writes=True) as cursor:
            if self._dialect == "postgresql":  # SQLite's transaction excludes all others
                cursor.execute(_LOCK, (_to_json(starts),))
            used = self._used(cursor, starts)
            answers: list[Granted] = []
            rows: list[tuple[Any, ...]] = []
            for claim in claims:
                answer = Granted(tuple(used[each.account] for each in claim.charges), refused(claim, used))
                answers.append(answer)
                self.notices += self._new_notices(cursor, claim, answer)
                if answer.is_refused:
                    continue
                rows += [(claim.id, *astuple(hold), self._worker_id) for hold in claim.holds]
                for charge in claim.charges:
                    used[charge.account] = used[charge.account].plus(charge.held)
                    self._accounts.add(charge)
            if rows:
                cursor.executemany(self._hold, rows)
        return answers

    def look(self) -> bool:
        """Looks at the accounts of which this process has given something away, if there are any."""
        starts = self._accounts.given()
        if starts:
            with self._transaction() as cursor:
                self._used(cursor, starts)
        return bool(starts)

    def raise_held(self, amounts: Sequence[tuple[int, str, int]]) -> None:
        """Sets what interceptions hold that use more than was expected: amount, interception, account."""
        with self._transaction(writes=True) as cursor:
            cursor.executemany(self._raise, amounts)

    def release(self, ids: Sequence[str]) -> None:
        """Releases what interceptions hold whose request has not waited for the answer."""
        with self._transaction(writes=True) as cursor:
            cursor.executemany(self._release, [(id,) for id in ids])

    def steps(self, charge: Charge) -> list[tuple[int, int]]:
        """Returns what was used of an account, step by step: bucket and amount."""
        with self._transaction() as cursor:
            of = (charge.account, charge.start)
            cursor.execute(self._steps, of + of)
            return [(int(bucket), int(used)) for bucket, used in cursor.fetchall()]

    def _new_notices(self, cursor: Any, claim: Claim, answer: Granted) -> Iterator[Notice]:
        """Yields those that nobody has written yet in this period, on any host."""
        for charge, used in zip(claim.charges, answer.used, strict=True):
            for notice in notices.notices_of(charge, used):
                if notice.key not in self._noticed:
                    self._noticed = self._noticed if len(self._noticed) < _MAX_NOTICED else set()
                    self._noticed.add(notice.key)
                    self._write_notice.run(cursor, [notice.row()])
                    if cursor.rowcount == 1:
                        yield notice

    def _used(self, cursor: Any, starts: Mapping[int, int]) -> dict[int, Used]:
        applied = self._accounts.applied()  # before the look, which may then show more than that
        cursor.execute(_USED[self._dialect], (_to_json(starts),))
        read = {int(account): Used(int(spent), int(held)) for account, spent, held in cursor.fetchall()}
        return self._accounts.learn(read, applied)

    @contextlib.contextmanager
    def _transaction(self, writes: bool = False) -> Iterator[Any]:
        if self._dialect == "postgresql":
            self.called_at = monotonic()
        try:
            with self._begin(writes) as cursor:
                self.called_at = inf
                yield cursor
        finally:
            self.called_at = inf

    @contextlib.contextmanager
    def _begin(self, writes: bool) -> Iterator[Any]:
        if self._connection is None:
            with DEADLINES.limit(_CALL_SECONDS):
                self._connection = self._engine.connect()
        driver: Any = self._connection.connection.dbapi_connection
        with self._fork_guard, DEADLINES.limit(_CALL_SECONDS, driver):
            cursor = driver.cursor()
            if self._dialect == "sqlite":
                cursor.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
            else:
                cursor.execute(_LOCK_TIMEOUT)
            try:
                yield cursor
            except BaseException:
                driver.rollback()
                raise
            driver.commit()


def _to_json(starts: Mapping[int, int]) -> str:
    """Returns accounts in the order in which all lock them, each with the first bucket that counts."""
    return encode(sorted(starts.items())).decode()


_LOCK_TIMEOUT = f"SET LOCAL lock_timeout = {int(LOCK_SECONDS * 1000)}"
_LOCK = (
    "SELECT pg_advisory_xact_lock((pair ->> 0)::bigint)"
    " FROM json_array_elements(%s::json) WITH ORDINALITY AS listed (pair, place) ORDER BY place"
)
_ACCOUNTS = {
    "sqlite": "SELECT json_extract(value, '$[0]') AS a, json_extract(value, '$[1]') AS b FROM json_each(?)",
    "postgresql": (
        "SELECT (value ->> 0)::bigint AS a, (value ->> 1)::bigint AS b FROM json_array_elements(%s::json)"
    ),
}
# one statement, so that what is released meanwhile is seen as held or as spent
_USED = {
    dialect: (
        "SELECT a, (SELECT coalesce(sum(spent), 0) FROM ledger WHERE account = a AND bucket >= b),"  # noqa: S608
        " (SELECT coalesce(sum(held), 0) FROM holds WHERE account = a AND bucket >= b)"
        f" FROM ({accounts}) AS accounts"
    )
    for dialect, accounts in _ACCOUNTS.items()
}
_HOLD = (
    "INSERT INTO holds (interception_id, account, bucket, held, limit_name, subject, worker_id)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_RAISE = "UPDATE holds SET held = ? WHERE interception_id = ? AND account = ?"
_RELEASE = "DELETE FROM holds WHERE interception_id = ?"
_STEPS = (
    "SELECT bucket, sum(used) FROM ("
    "SELECT bucket, spent AS used FROM ledger WHERE account = ? AND bucket >= ?"
    " UNION ALL SELECT bucket, held FROM holds WHERE account = ? AND bucket >= ?"
    ") AS steps GROUP BY bucket ORDER BY bucket"
)
