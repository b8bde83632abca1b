"""What ended interceptions have spent of limits; what they held before is released with it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Dialect

from ..limits.definitions import KnownLimits
from ..limits.limit import Asked, Limit, called_model
from .contribution import Change, Contribution
from .contribution import Row as Interception
from .keys import session_key
from .statement import IDS
from .sum_tables import AMOUNTS, TOKENS, ledger
from .sums import Part, Sums

_MAX_GROUP_SETS = 1000
_TOKENS = tuple(map(AMOUNTS.index, TOKENS))
_MICROS = AMOUNTS.index("cost_micros")


class Ledger:
    """A part of `Contributions`. It knows the limits as they are within the transaction."""

    def __init__(self, dialect: Dialect) -> None:
        self._sums = Sums(dialect, ledger, ("spent",), "spent")
        self._known = KnownLimits()
        self._groups = GroupSets(dialect)
        self._release = f"DELETE FROM holds WHERE interception_id IN ({IDS[dialect.name]})"  # noqa: S608

    def __call__(self, cursor: Any, changes: Sequence[Change]) -> None:
        ended = [change for change in changes if change.after.ended or change.before.ended]
        limits = self._known.read(cursor) if ended else ()
        if not limits:
            return
        cursor.execute(self._release, (json.dumps([each.row.id for each in ended if each.after.ended]),))
        new: list[Part] = []
        old: list[Part] = []
        for change in ended:
            row, groups = change.row, self._groups.names(cursor, change.row.group_set)
            new += parts_of(limits, row, groups, row.session_id, change.after)
            old += parts_of(limits, row, groups, _old_session_id(change), change.before)
        self._sums.change(cursor, new, old)


class GroupSets:
    """The names in groups' sets, which never change."""

    def __init__(self, dialect: Dialect) -> None:
        self._query = f"SELECT name FROM group_sets WHERE id = {'?' if dialect.positional else '%s'}"  # noqa: S608
        self._names: dict[str, tuple[str, ...]] = {"": ()}

    def names(self, cursor: Any, id: str) -> tuple[str, ...]:
        if id not in self._names:
            if len(self._names) > _MAX_GROUP_SETS:
                self._names = {"": ()}
            cursor.execute(self._query, (id,))
            self._names[id] = tuple(sorted(name for (name,) in cursor.fetchall()))
        return self._names[id]


def parts_of(
    limits: Sequence[Limit],
    row: Interception,
    groups: tuple[str, ...],
    session_id: str,
    contribution: Contribution,
) -> Iterator[Part]:
    """Yields what this interception adds to the ledger; nothing if it has not ended."""
    if not contribution.ended:
        return
    asked = _asked(row, groups, session_id)
    tokens = sum(contribution.amounts[index] for index in _TOKENS)
    for limit in limits:
        spent = limit.amount(contribution.sent, tokens, contribution.amounts[_MICROS])
        if spent:
            for subject in limit.subjects(asked):
                key = (limit.account(subject), limit.bucket(asked.at))
                yield Part(key, (spent,), (limit.name, subject))


def _asked(row: Interception, groups: tuple[str, ...], session_id: str) -> Asked:
    return Asked(
        actor=row.initiator_id,
        at=int(row.started_at.timestamp()),
        groups=groups,
        session=session_id,
        agent=row.agent_id,
        token=row.token_id,
        model=called_model(row.model, row.profile),
        provider=row.provider_name,
        client=row.client,
        credential=row.credential_kind,
    )


def _old_session_id(change: Change) -> str:
    """Returns the session in which it was counted: a child may have joined its parent's thread since."""
    row = change.row
    if change.old_session in (0, change.session):
        return row.session_id
    own = session_key(row.initiator_id, row.id) == change.old_session
    return row.id if own else row.session_id
