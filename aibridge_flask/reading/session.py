"""Questions for one session: its agents, and its threads with every interception."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, RowMapping

from ..model import Actor
from ..records import audit
from ..records.costs import UNPRICED_STATUSES
from ..records.sum_tables import TOKENS, sessions
from ..records.tables import interceptions, token_usages
from .connection import Source, connected
from .errors import BadQuestion, NotFound
from .pages import fill, join_members
from .parts import with_parts
from .session_search import visible_to
from .sessions import cost_of, described
from .values import encode, json_value

Result = dict[str, Any]
_s, _i, _u = sessions.c, interceptions.c, token_usages.c
_THREAD = sa.func.coalesce(_i.thread_root_id, _i.id)
_MAIN = "main"


@dataclass(frozen=True, slots=True)
class Threads:
    """Which threads of a session are asked for: the first ones, those after one, or the last before one."""

    limit: int = 50
    after_id: str = ""
    before_id: str = ""


def session(source: Source, actor: Actor, id: str, initiator: str, threads: Threads) -> bytes:
    """Returns a session with its agents and a page of its threads, as JSON.

    Of several actors' sessions with this id it is the `initiator`'s, or the last active one. An administrator
    who opens another's session leaves an audit row. Raises NotFound, BadQuestion.
    """
    with connected(source) as connection:
        row = find_session(connection, actor, id, initiator)
        ids = _thread_ids(connection, row["key"])
        chosen = _chosen(ids, threads)
        found = _page(connection, row["key"], chosen, is_backward=bool(threads.before_id))
        (whole,) = described(connection, [row])
        whole.pop("threads")
        whole["agents"] = list(_agents(connection, row["key"]))
    if row["initiator_id"] != actor.id:
        audit.write(source.engine, actor.id, "session.read", id, after={"initiator": row["initiator_id"]})
    shown = chosen[-len(found) :] if threads.before_id and found else chosen[: len(found)]
    limits = {
        "next_after_id": shown[-1] if shown and shown[-1] != ids[-1] else None,
        "next_before_id": shown[0] if shown and shown[0] != ids[0] else None,
    }
    return join_members(encode(whole), b'"threads":[%s]' % b",".join(found), encode(limits))


def find_session(connection: Connection, actor: Actor, id: str, initiator: str) -> RowMapping:
    """Returns the row of the `initiator`'s session, or of the last active one. Raises NotFound."""
    wanted = [_s.initiator_id == initiator] if initiator else []
    query = sa.select(sessions).where(_s.id == id, *wanted, *visible_to(actor))
    newest = query.order_by(_s.last_active_at.desc(), _s.key.desc()).limit(1)
    row = None if "\0" in id + initiator else connection.execute(newest).mappings().first()
    if row is None:
        raise NotFound("there is no such session")
    return row


def _thread_ids(connection: Connection, key: int) -> list[str]:
    """Returns the ids of all threads, oldest first."""
    began = sa.func.min(_i.started_at)
    query = sa.select(_THREAD).where(_i.session_key == key).group_by(_THREAD)
    return list(connection.scalars(query.order_by(began, _THREAD)))


def _chosen(ids: Sequence[str], threads: Threads) -> Sequence[str]:
    for field, id in (("after_id", threads.after_id), ("before_id", threads.before_id)):
        if id and id not in ids:
            raise BadQuestion(field, "there is no such thread")
    if threads.before_id:
        end = ids.index(threads.before_id)
        return ids[max(0, end - threads.limit) : end]
    start = ids.index(threads.after_id) + 1 if threads.after_id else 0
    return ids[start : start + threads.limit]


def _page(connection: Connection, key: int, threads: Sequence[str], is_backward: bool) -> list[bytes]:
    """Returns the threads that a page has room for: the first ones, or backward the last."""
    ordered = threads[::-1] if is_backward else threads
    rows = fill(_threads(connection, key, ordered))
    return rows[::-1] if is_backward else rows


def _threads(connection: Connection, key: int, threads: Sequence[str]) -> Iterator[Result]:
    place = {id: number for number, id in enumerate(threads)}
    query = sa.select(_i.id, _THREAD).where(_i.session_key == key, _THREAD.in_(threads))
    found = connection.execute(query.order_by(_i.started_at, _i.id)).all() if threads else []
    thread_of = dict(tuple(row) for row in found)
    # stable: oldest first within a thread
    ids = sorted(thread_of, key=lambda member: place[thread_of[member]])
    whole = with_parts(connection, ids)
    for id, members in groupby(whole, lambda interception: thread_of[interception["id"]]):
        yield _thread(id, list(members))


def _thread(id: str, members: Sequence[Result]) -> Result:
    first, last = members[0], members[-1]
    costs = [member["cost_micros"] for member in members if member["cost_micros"] is not None]
    of_first = ("agent_id", "parent_agent_id", "kind", "model", "provider", "provider_name")
    ends = [member["ended_at"] for member in members]
    return {
        "id": id,
        **{name: first[name] for name in of_first},
        "credential_kind": first["credential_kind"],
        "credential_hint": first["credential_hint"],
        "cost_micros": sum(costs) if costs else None,
        "duration_ms": sum(member["duration_ms"] for member in members),
        "attempts": sum(member["attempts"] for member in members),
        "prompt": next((text["prompt"] for member in members for text in member["user_prompts"]), ""),
        "started_at": first["started_at"],
        "ended_at": max(ends) if all(ends) else None,
        "error_type": last["error_type"],
        "error_message": last["error_message"],
        "token_usage": _tokens(usage for member in members for usage in member["token_usages"]),
        "agentic_actions": [_action(member) for member in members],
    }


def _action(member: Result) -> Result:
    names = ("model", "kind", "cost_micros", "started_at", "ended_at", "first_byte_ms", "duration_ms")
    return {
        "interception_id": member["id"],
        **{name: member[name] for name in (*names, "error_type", "error_message")},
        "token_usage": _tokens(member["token_usages"]),
        "thinking": [
            {"text": thought["content"], "source": thought["metadata"]["source"]}
            for thought in member["model_thoughts"]
        ],
        "tool_calls": member["tool_usages"],
    }


def _tokens(usages: Iterable[Mapping[str, Any]]) -> Result:
    totals = dict.fromkeys(TOKENS, 0)
    for usage in usages:
        for name in TOKENS:
            totals[name] += usage[name]
    return totals


def _agents(connection: Connection, key: int) -> Iterator[Result]:
    """Yields the main agent, whose id is "", and its subagents, oldest first."""
    tokens = _agents_tokens(connection, key)
    for row in connection.execute(_AGENTS, {"of": key}).mappings():
        has_ended = row["ended"] == row["requests"]
        yield {
            "agent_id": row["agent_id"],
            "parent_agent_id": row["parent_agent_id"],
            "threads": row["threads"],
            "started_at": json_value(row["began"]),
            "ended_at": json_value(row["finished"]) if has_ended else None,
            "token_usage": tokens.get(row["agent_id"], dict.fromkeys(TOKENS, 0)),
            "cost_micros": cost_of(row["cost"], row["requests"], row["unpriced"]),
        }


def _agents_tokens(connection: Connection, key: int) -> dict[str, Result]:
    rows = connection.execute(_AGENTS_TOKENS, {"of": key}).mappings()
    return {row["agent_id"]: {name: row[name] for name in TOKENS} for row in rows}


def _integer(total: Any) -> sa.Cast[int]:
    return sa.cast(sa.func.coalesce(sa.func.sum(total), 0), sa.BigInteger)


_OF_SESSION = _i.session_key == sa.bindparam("of", type_=sa.BigInteger)
_IS_THREAD = sa.and_(_i.thread_root_id.is_(None), _i.kind == _MAIN)
_AGENTS = (
    sa.select(
        _i.agent_id,
        sa.func.max(_i.parent_agent_id).label("parent_agent_id"),
        _integer(sa.case((_IS_THREAD, 1), else_=0)).label("threads"),
        sa.func.min(_i.started_at).label("began"),
        sa.func.max(_i.ended_at).label("finished"),
        sa.func.count(_i.ended_at).label("ended"),
        sa.func.count().label("requests"),
        _integer(_i.cost_micros).label("cost"),
        _integer(sa.case((_i.cost_status.in_(UNPRICED_STATUSES), 1), else_=0)).label("unpriced"),
    )
    .where(_OF_SESSION)
    .group_by(_i.agent_id)
    .order_by(sa.func.min(_i.started_at), _i.agent_id)
)
_AGENTS_TOKENS = (
    sa.select(_i.agent_id, *(_integer(_u[name]).label(name) for name in TOKENS))
    .join(token_usages, _u.interception_id == _i.id)
    .where(_OF_SESSION)
    .group_by(_i.agent_id)
)
