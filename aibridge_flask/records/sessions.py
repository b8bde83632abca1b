"""The rows of sessions, which count from their first interception on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Dialect, Table

from .contribution import MAIN, Change, Contribution
from .contribution import Row as Interception
from .statement import shared
from .sum_tables import AMOUNTS, sessions
from .sums import Part, Sums
from .tables import interceptions, user_prompts

SUMMED = ("ended", "threads", *AMOUNTS)


class Sessions:
    """A part of `Contributions`."""

    def __init__(self, dialect: Dialect) -> None:
        self._sums = Sums(dialect, sessions, SUMMED, "requests", _merged)
        self._recompute = shared(_RECOMPUTE, dialect)

    def __call__(self, cursor: Any, changes: Sequence[Change]) -> None:
        old = (
            Part((change.old_session,), _amounts(change.before)) for change in changes if change.old_session
        )
        self._sums.change(cursor, _parts(changes), old)
        left = {change.old_session for change in changes if change.old_session not in (0, change.session)}
        if left:
            self._recompute.run(cursor, [{"of": key} for key in sorted(left)])

    def correct(self, cursor: Any, table: Table, row: Mapping[str, Any]) -> None:
        """Adds what a row lacks, if the table is this one."""
        if table is sessions:
            self._sums.correct(cursor, row)


def part_of(row: Interception, contribution: Contribution, key: int) -> Part:
    """Returns what this interception alone adds to a session."""
    return Part((key,), _amounts(contribution), _others(row))


def _amounts(contribution: Contribution) -> tuple[int, ...]:
    return (contribution.ended, contribution.threads, *contribution.amounts)


def _others(row: Interception) -> tuple[Any, ...]:
    is_prompt = row.has_prompt and row.kind == MAIN
    return (
        row.initiator_id,
        row.session_id,
        row.client,
        json.loads(row.metadata) if isinstance(row.metadata, str) else row.metadata,
        row.started_at,
        row.last_active,
        row.id if is_prompt else "",
        row.started_at if is_prompt else None,
    )


def _parts(changes: Sequence[Change]) -> Iterator[Part]:
    """Yields what is added. The other columns are those of the session's first interception, but for the
    last activity and the newest prompt."""
    others: dict[int, tuple[Any, ...]] = {}
    for change in sorted(changes, key=lambda change: change.row.started_at):
        new = _others(change.row)
        *first, last_active, prompt_of, prompt_at = others.get(change.session, new)
        prompt = new[-2:] if new[-2] else (prompt_of, prompt_at)
        others[change.session] = (*first, max(last_active, change.row.last_active), *prompt)
    for change in changes:
        yield Part((change.session,), _amounts(change.after), others[change.session])


def _merged(new: Any) -> Mapping[str, Any]:
    """Returns the columns of an existing row that a new interception may change."""
    c = sessions.c
    is_newest = sa.and_(
        new.prompt_at.is_not(None), sa.or_(c.prompt_at.is_(None), new.prompt_at >= c.prompt_at)
    )
    return {
        "started_at": sa.case((new.started_at < c.started_at, new.started_at), else_=c.started_at),
        "last_active_at": sa.case(
            (new.last_active_at > c.last_active_at, new.last_active_at), else_=c.last_active_at
        ),
        "prompt_of": sa.case((is_newest, new.prompt_of), else_=c.prompt_of),
        "prompt_at": sa.case((is_newest, new.prompt_at), else_=c.prompt_at),
    }


_i = interceptions.c
_OF_SESSION = _i.session_key == sa.bindparam("of")
_prompts = (
    sa.select(_i.id, _i.started_at)
    .join(user_prompts, user_prompts.c.interception_id == _i.id)
    .where(_OF_SESSION, _i.kind == MAIN)
    .order_by(_i.started_at.desc())
    .limit(1)
    .subquery()
)
_FIRST_START = sa.select(sa.func.min(_i.started_at)).where(_OF_SESSION).scalar_subquery()
_LAST_END = (
    sa.select(sa.func.max(sa.func.coalesce(_i.ended_at, _i.started_at))).where(_OF_SESSION).scalar_subquery()
)
# What is left of a session whose interceptions have moved to another one, as a child does to its parent's.
_RECOMPUTE = (
    sa.update(sessions)
    .where(sessions.c.key == sa.bindparam("of"))
    .values(
        # its other interceptions may have expired
        started_at=sa.func.coalesce(_FIRST_START, sessions.c.started_at),
        last_active_at=sa.func.coalesce(_LAST_END, sessions.c.last_active_at),
        prompt_of=sa.func.coalesce(sa.select(_prompts.c.id).scalar_subquery(), ""),
        prompt_at=sa.select(_prompts.c.started_at).scalar_subquery(),
    )
)
