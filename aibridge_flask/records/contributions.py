"""What an interception has added to sums and limits: each change of it adds the new amounts minus the old
ones.

The amounts that were added stand in the interception's row, under whose lock they are compared. So a replay
adds nothing, and a later end, another usage or an interruption corrects what was added before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy import Dialect

from .statement import Statement
from .tables import interceptions, token_usages

_KINDS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens")
_LOCKED_ROW = (
    sa.select(
        interceptions.c.id,
        interceptions.c.contributed,
        interceptions.c.initiator_id,
        interceptions.c.ended_at,
        interceptions.c.error_type,
        interceptions.c.cost_micros,
    )
    .where(interceptions.c.id == sa.bindparam("which"))
    .with_for_update()
)
_USAGE = sa.select(*(sa.func.coalesce(sa.func.sum(token_usages.c[kind]), 0) for kind in _KINDS)).where(
    token_usages.c.interception_id == sa.bindparam("which")
)
_STORE = (
    sa.update(interceptions)
    .where(interceptions.c.id == sa.bindparam("which"))
    .values(contributed=sa.bindparam("amounts", type_=sa.JSON))
)


class Change(Struct, frozen=True):
    """The amounts of an interception that were added before, and those that count now."""

    interception_id: str
    initiator_id: str
    before: Mapping[str, int]
    after: Mapping[str, int]


Step = Callable[[Any, Sequence[Change]], None]
"""Called with the driver's cursor, within the transaction that applies the changes."""


class Contributions:
    """Finds the changes of interceptions, and passes them to the steps. Without steps it does nothing."""

    def __init__(self, dialect: Dialect, steps: Sequence[Step]) -> None:
        self._steps = steps
        self._row, self._usage = Statement(_LOCKED_ROW, dialect), Statement(_USAGE, dialect)
        self._store = Statement(_STORE, dialect)

    def update(self, cursor: Any, ids: Sequence[str]) -> None:
        """Compares the interceptions with what they have added, and adds the differences."""
        if not self._steps:
            return
        changes = [change for id in sorted(set(ids)) for change in self._changes(cursor, id)]
        if not changes:
            return
        self._store.run(
            cursor, [{"which": change.interception_id, "amounts": change.after} for change in changes]
        )
        for step in self._steps:
            step(cursor, changes)

    def _changes(self, cursor: Any, id: str) -> Sequence[Change]:
        row = self._row.first(cursor, {"which": id})
        if not row:
            return ()
        _, contributed, initiator_id, ended_at, error_type, cost = row
        before = json.loads(contributed) if isinstance(contributed, str) else contributed
        usage = self._usage.first(cursor, {"which": id})
        after = {
            "requests": 1,
            "ended": int(ended_at is not None),
            "errors": int(error_type != ""),
            "cost_micros": cost or 0,
            **{kind: int(count) for kind, count in zip(_KINDS, usage, strict=True)},
        }
        return () if before == after else (Change(id, initiator_id, before or {}, after),)
