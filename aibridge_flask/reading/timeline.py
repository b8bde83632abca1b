"""What a session has done, and when: short facts of all its interceptions, for a picture of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy import Connection

from ..model import Actor
from ..records.tables import interceptions, token_usages, tool_usages, user_prompts
from .connection import Source, connected
from .session import find_session

MAX_MOMENTS = 2000
_i, _u, _t, _p = interceptions.c, token_usages.c, tool_usages.c, user_prompts.c


class Moment(Struct, frozen=True):
    """An interception. `context` is what its model has read, in tokens; `tools` are (name, has failed)."""

    id: str
    thread: str
    agent_id: str
    parent_agent_id: str
    model: str
    kind: str
    error_type: str
    started_at: datetime
    ended_at: tuple[datetime, ...]
    attempts: int
    context: int
    has_prompt: bool
    tools: tuple[tuple[str, bool], ...]


_NAMES = ("id", "agent_id", "parent_agent_id", "model", "kind", "error_type", "started_at", "attempts")


def timeline(source: Source, actor: Actor, id: str, initiator: str) -> list[Moment]:
    """Returns the first moments of a session, at most `MAX_MOMENTS`, oldest first. Raises NotFound."""
    with connected(source) as connection:
        key = find_session(connection, actor, id, initiator)["key"]
        return list(_moments(connection, key))


def _moments(connection: Connection, key: int) -> Iterator[Moment]:
    of_session = _i.session_key == key
    rows = connection.execute(_query(of_session)).mappings().all()
    tools = _tools(connection, of_session)
    prompts = sa.select(_p.interception_id).join(interceptions, _i.id == _p.interception_id).where(of_session)
    prompted = set(connection.scalars(prompts))
    for row in rows:
        yield Moment(
            **{name: row[name] for name in (*_NAMES, "thread")},
            ended_at=(row["ended_at"],) if row["ended_at"] else (),
            context=int(row["context"] or 0),
            has_prompt=row["id"] in prompted,
            tools=tuple(tools.get(row["id"], ())),
        )


def _query(of_session: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """The context is that of the last response: those before are rounds of injected tools."""
    read = _u.input_tokens + _u.cache_read_input_tokens + _u.cache_write_input_tokens
    sums = (
        sa.select(_u.interception_id, sa.func.max(read).label("context"))
        .join(interceptions, _i.id == _u.interception_id)
        .where(of_session)
        .group_by(_u.interception_id)
        .subquery()
    )
    thread = sa.func.coalesce(_i.thread_root_id, _i.id).label("thread")
    query = sa.select(*(_i[name] for name in _NAMES), _i.ended_at, thread, sums.c.context)
    joined = query.outerjoin(sums, sums.c.interception_id == _i.id).where(of_session)
    return joined.order_by(_i.started_at, _i.id).limit(MAX_MOMENTS)


def _tools(connection: Connection, of_session: sa.ColumnElement[bool]) -> dict[str, list[tuple[str, bool]]]:
    query = sa.select(_t.interception_id, sa.func.substr(_t.tool, 1, 200), _t.invocation_error != "")
    rows = query.join(interceptions, _i.id == _t.interception_id).where(of_session)
    found: dict[str, list[tuple[str, bool]]] = {}
    for id, tool, has_failed in connection.execute(rows.order_by(_t.interception_id, _t.turn, _t.position)):
        found.setdefault(id, []).append((tool, bool(has_failed)))
    return found
