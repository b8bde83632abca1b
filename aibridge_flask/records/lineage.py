"""Links interceptions of a conversation: the one whose tool call it answers is an interception's parent.

Logs of different workers are applied in any order, so a link is made from both sides: when a child arrives,
and when a tool call does. The root of a thread follows, also for descendants that were linked before.

Some upstreams number the calls of each response, and clients choose the ids that they send: an id may recur
without end. So both look-ups read at most `_CANDIDATES` rows that have the id and, if there are more of
these, the `_CANDIDATES` interceptions of the actor that are nearest in time. An id that is only a number,
such as `Bash:0`, begins anew in each conversation: it links within a session, or if one call of it is open.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from zlib import crc32

import sqlalchemy as sa
from sqlalchemy import Dialect

from .statement import IDS, shared
from .tables import interceptions

Row = Mapping[str, Any]
_CANDIDATES = 100
_CHILDREN = 10  # of one tool call that are linked when it arrives: the first after it
_LOCKS = 512  # a transaction holds no more: PostgreSQL keeps all locks in a table of fixed size
_LOCK_CLASS = 0x6169426C  # of PostgreSQL's advisory locks: "aiBl"

_NUMBERED = re.compile(r"(?:^|[^0-9A-Za-z])\d{1,4}$")  # `call_0`, but not `call_00_a8Fk` or a UUID

# The same actor, the same session if both have one, and no call after the answer.
_BELONG_TOGETHER = (
    "parent.initiator_id = child.initiator_id AND parent.id <> child.id"
    " AND parent.started_at <= child.started_at"
    " AND (parent.client_session_id = '' OR child.client_session_id = ''"
    " OR parent.client_session_id = child.client_session_id)"
)


def _candidates(id: str, having_it: str, nearest: str, order: str) -> str:
    """Returns the query of the ids of candidates. `id` and `having_it` are a column and the rest of a query
    for rows with a tool call id, `nearest` is the query for the actor's, nearest first in this `order`.
    """
    first = f"{having_it} LIMIT {_CANDIDATES}"
    are_more = f"(SELECT count(*) FROM (SELECT 1 {first}) AS counted) = {_CANDIDATES}"  # noqa: S608
    return (
        f"SELECT id FROM (SELECT {id} AS id {first}) AS having_it"  # noqa: S608 - parts are constants
        # outside, else SQLite counts anew for each of the actor's interceptions
        f" UNION SELECT id FROM ({nearest} ORDER BY {order} LIMIT {_CANDIDATES}) AS nearest WHERE {are_more}"
    )


# Of several parents the newest counts, if a conversation was forked or replayed. `|| ''` keeps a query off
# the index of the ids, which may recur.
_PARENT_CANDIDATES = _candidates(
    "interception_id",
    "FROM tool_usages WHERE tool_call_id = child.correlating_tool_call_id",
    "SELECT id FROM interceptions AS near WHERE initiator_id = child.initiator_id"
    " AND started_at <= child.started_at",
    "started_at DESC",
)
_CALLS_IT = (
    "EXISTS (SELECT 1 FROM tool_usages WHERE interception_id = parent.id"
    " AND tool_call_id || '' = child.correlating_tool_call_id)"
)
_FIND_PARENTS = (
    f"SELECT child.id, (SELECT parent.id FROM ({_PARENT_CANDIDATES}) AS candidate"  # noqa: S608 - constants
    " JOIN interceptions AS parent ON parent.id = candidate.id"
    f" WHERE {_BELONG_TOGETHER} AND {_CALLS_IT} ORDER BY parent.started_at DESC LIMIT 1)"
    " FROM interceptions AS child WHERE child.id IN ({ids}) ORDER BY child.started_at"
)
_ANSWERED_BEFORE = (
    "(SELECT max(started_at) FROM (SELECT * FROM interceptions AS near"  # noqa: S608 - constants
    " WHERE initiator_id = child.initiator_id AND started_at < child.started_at"
    f" ORDER BY started_at DESC LIMIT {_CANDIDATES}) AS earlier"
    " WHERE correlating_tool_call_id = child.correlating_tool_call_id AND client_session_id = ''"
    " AND agent_id = child.agent_id)"
)
_FIND_PARENTS_BY_NUMBER = (
    "SELECT child.id, (SELECT id FROM (SELECT parent.id, count(*) OVER () AS open_calls"  # noqa: S608 - constants
    f" FROM ({_PARENT_CANDIDATES}) AS candidate JOIN interceptions AS parent ON parent.id = candidate.id"
    f" WHERE {_BELONG_TOGETHER} AND parent.client_session_id = child.client_session_id"
    f" AND parent.agent_id = child.agent_id AND {_CALLS_IT}"
    f" AND (child.client_session_id <> '' OR coalesce(parent.started_at >= {_ANSWERED_BEFORE}, true))"
    " ORDER BY parent.started_at DESC LIMIT 1) AS newest"
    " WHERE open_calls = 1 OR child.client_session_id <> '')"
    " FROM interceptions AS child WHERE child.id IN ({ids}) ORDER BY child.started_at"
)
_CHILD_CANDIDATES = _candidates(
    "id",
    "FROM interceptions WHERE correlating_tool_call_id = call.id AND correlating_tool_call_id <> ''",
    "SELECT id FROM interceptions AS near WHERE initiator_id = parent.initiator_id"
    " AND started_at >= parent.started_at",
    "started_at",
)
_FIND_WAITING = (
    "SELECT parent.id, (SELECT {array}(id) FROM ("  # noqa: S608 - constants
    f"SELECT child.id FROM ({_CHILD_CANDIDATES}) AS candidate"
    " JOIN interceptions AS child ON child.id = candidate.id"
    f" WHERE {_BELONG_TOGETHER} AND child.thread_parent_id IS NULL"
    f" AND child.correlating_tool_call_id = call.id ORDER BY child.started_at LIMIT {_CHILDREN}) AS first)"
    " FROM ({calls}) AS call JOIN interceptions AS parent ON parent.id = call.parent_id"
    " ORDER BY parent.started_at"
)
_FIND_DESCENDANTS = "SELECT id FROM interceptions WHERE thread_root_id IN ({ids}) AND client_session_id = ''"
_DIALECTS = {
    "sqlite": {
        "ids": IDS["sqlite"],
        "calls": "SELECT json_extract(value, '$[0]') AS parent_id, json_extract(value, '$[1]') AS id"
        " FROM json_each(?)",
        "array": "json_group_array",
    },
    "postgresql": {
        "ids": IDS["postgresql"],
        "calls": "SELECT value ->> 0 AS parent_id, value ->> 1 AS id FROM json_array_elements(%s::json)",
        "array": "json_agg",
    },
}
# The server ends a transaction whose process was stopped in it, for which others would wait. If most rows
# have one id, the planner would read the whole table for another.
_LOCK = (
    "SELECT set_config('idle_in_transaction_session_timeout', '10s', true),"
    " set_config('enable_seqscan', 'off', true), pg_advisory_xact_lock(%s, lock)"
    " FROM unnest(%s::int[]) AS lock"
)
# Another transaction may be giving a parent its own root, which is then waited for.
_LOCK_PARENTS = "SELECT 1 FROM interceptions WHERE id = ANY(%s) ORDER BY id FOR SHARE"
_of_parent, _of_child = (
    sa.select(row.c.thread_root_id).where(row.c.id == sa.bindparam(name)).scalar_subquery()
    for name, row in ((name, interceptions.alias(name)) for name in ("parent", "child"))
)
_SET_PARENT = (
    sa.update(interceptions)
    .where(interceptions.c.id == sa.bindparam("child"))
    .values(
        thread_parent_id=sa.bindparam("parent"),
        thread_root_id=sa.func.coalesce(_of_parent, sa.bindparam("parent")),
    )
)
_SET_ROOT = (
    sa.update(interceptions)
    .where(interceptions.c.thread_root_id == sa.bindparam("child"))
    .values(thread_root_id=_of_child)
)


class Lineage:
    """Links within a transaction, on the driver's cursor."""

    def __init__(self, dialect: Dialect) -> None:
        parts = _DIALECTS[dialect.name]
        self._find_parents, self._find_waiting = _FIND_PARENTS.format(**parts), _FIND_WAITING.format(**parts)
        self._find_parents_by_number = _FIND_PARENTS_BY_NUMBER.format(**parts)
        self._find_descendants = _FIND_DESCENDANTS.format(**parts)
        self._locks = dialect.name == "postgresql"
        self._set_parent, self._set_root = shared(_SET_PARENT, dialect), shared(_SET_ROOT, dialect)

    def lock(self, cursor: Any, started: Iterable[Row], calls: Iterable[Row]) -> None:
        """Makes transactions with the same tool call ids wait for each other: of two that write a parent and
        its child at the same time, neither would see the other's row. SQLite has one writer anyway.

        Called before rows are locked, and before `link`. The locks are taken in the order of their numbers,
        so that none wait in a ring.
        """
        if not self._locks:
            return
        ids = {row["correlating_tool_call_id"] for row in started} | {row["tool_call_id"] for row in calls}
        numbers = sorted({crc32(id.encode()) % _LOCKS for id in ids if id})
        if numbers:
            cursor.execute(_LOCK, (_LOCK_CLASS, numbers))

    def link(self, cursor: Any, started: Iterable[Row], calls: Iterable[Row]) -> set[str]:
        """Links the rows of new interceptions to their parents, and those of new tool calls to their
        children. Returns the ids of those that have another thread or session now.
        """
        answers = {row["id"]: row["correlating_tool_call_id"] for row in started}
        unique = [id for id in answers if _is_unique(answers[id])]
        moved = self._link_children(cursor, self._find_parents, unique)
        pairs = sorted({(row["interception_id"], row["tool_call_id"]) for row in calls})
        # one without a parent has none but these: the newest is the last
        waiting = self._waiting(cursor, [pair for pair in pairs if _is_unique(pair[1])])
        moved |= self._set(cursor, {child: parent for parent, children in waiting for child in children})
        waiting = self._waiting(cursor, [pair for pair in pairs if _NUMBERED.search(pair[1])])
        children = {child for _, found in waiting for child in found}
        children |= {id for id in answers if _NUMBERED.search(answers[id])}
        return moved | self._link_children(cursor, self._find_parents_by_number, sorted(children))

    def _link_children(self, cursor: Any, query: str, children: list[str]) -> set[str]:
        found = _rows(cursor, query, children) if children else []
        return self._set(cursor, {child: parent for child, parent in found if parent})

    def _waiting(self, cursor: Any, pairs: list[tuple[str, str]]) -> list[tuple[str, list[str]]]:
        """Returns the children without a parent that the calls of each parent may have."""
        found = _rows(cursor, self._find_waiting, pairs) if pairs else []
        return [(parent, _array(waiting)) for parent, waiting in found]

    def _set(self, cursor: Any, parents: Mapping[str, str]) -> set[str]:
        """Sets parents, by the ids of children. First all parents, then roots, which follow in this order.

        Returns the ids of the children, and of those of their descendants whose session follows the thread.
        """
        links = [{"child": child, "parent": parent} for child, parent in parents.items()]
        if not links:
            return set()
        if self._locks:
            cursor.execute(_LOCK_PARENTS, (sorted(set(parents.values())),))
        descendants = _rows(cursor, self._find_descendants, list(parents))
        self._set_parent.run(cursor, links)
        self._set_root.run(cursor, links)
        return {*parents, *(id for (id,) in descendants)}


def _is_unique(id: str) -> bool:
    return bool(id) and not _NUMBERED.search(id)


def _rows(cursor: Any, query: str, argument: Iterable[Any]) -> list[tuple[Any, ...]]:
    cursor.execute(query, (json.dumps(argument, ensure_ascii=False),))
    return list(cursor.fetchall())


def _array(value: Any) -> list[str]:
    """Returns an aggregated array, which is JSON or None in some drivers."""
    array: list[str] = json.loads(value) if isinstance(value, str) else value or []
    return array
