"""Links interceptions of a conversation: the one whose tool call it answers is an interception's parent.

Logs of different workers are applied in any order, so a link is made from both sides: when a child arrives,
and when a tool call does. The root of a thread follows, also for descendants that were linked before.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Dialect

from .statement import Statement
from .tables import interceptions, tool_usages

_parent, _child = interceptions.alias("parent"), interceptions.alias("child")


def _belong_together(first: Any, second: Any) -> list[Any]:
    """The same actor, and the same session if both have one."""
    sessions = (first.c.client_session_id, second.c.client_session_id)
    return [
        first.c.initiator_id == second.c.initiator_id,
        first.c.id != second.c.id,
        sa.or_(sessions[0] == "", sessions[1] == "", sessions[0] == sessions[1]),
    ]


# The newest, if a conversation was forked or replayed.
_FIND_PARENT = (
    sa.select(_parent.c.id, _parent.c.thread_root_id)
    .select_from(
        _child.join(tool_usages, tool_usages.c.tool_call_id == _child.c.correlating_tool_call_id).join(
            _parent, _parent.c.id == tool_usages.c.interception_id
        )
    )
    .where(
        _child.c.id == sa.bindparam("child"),
        _child.c.correlating_tool_call_id == sa.bindparam("call"),
        *_belong_together(_parent, _child),
        _parent.c.started_at <= _child.c.started_at,
    )
    .order_by(_parent.c.started_at.desc())
    .limit(1)
)
# Interceptions that wait for a parent, by the tool calls that they answer: one query for a batch.
_WAITING = (
    "SELECT id, correlating_tool_call_id FROM interceptions"
    " WHERE thread_parent_id IS NULL AND correlating_tool_call_id <> '' AND correlating_tool_call_id"
)
_FIND_WAITING = {  # constant texts
    "sqlite": f"{_WAITING} IN (SELECT value FROM json_each(?))",  # noqa: S608
    "postgresql": f"{_WAITING} = ANY(%s)",
}
_SET_PARENT = (
    sa.update(interceptions)
    .where(interceptions.c.id == sa.bindparam("child"))
    .values(thread_parent_id=sa.bindparam("parent"), thread_root_id=sa.bindparam("root"))
)
_SET_ROOT = (
    sa.update(interceptions)
    .where(interceptions.c.thread_root_id == sa.bindparam("child"))
    .values(thread_root_id=sa.bindparam("root"))
)


class Lineage:
    """Links within a transaction, on the driver's cursor."""

    def __init__(self, dialect: Dialect) -> None:
        self._find_parent = Statement(_FIND_PARENT, dialect)
        self._find_waiting, self._is_sqlite = _FIND_WAITING[dialect.name], dialect.name == "sqlite"
        self._set_parent = Statement(_SET_PARENT, dialect)
        self._set_root = Statement(_SET_ROOT, dialect)

    def link(
        self, cursor: Any, started: Iterable[Mapping[str, Any]], calls: Iterable[Mapping[str, Any]]
    ) -> None:
        """Links the rows of new interceptions to their parents, and those of new tool calls to their
        children.
        """
        for row in started:
            if row["correlating_tool_call_id"]:
                self._link_child(cursor, row["id"], row["correlating_tool_call_id"])
        ids = sorted({row["tool_call_id"] for row in calls if row["tool_call_id"]})
        if ids:
            cursor.execute(self._find_waiting, (json.dumps(ids) if self._is_sqlite else ids,))
            for child, call in cursor.fetchall():
                self._link_child(cursor, child, call)

    def _link_child(self, cursor: Any, child: str, call: str) -> None:
        found = self._find_parent.first(cursor, {"child": child, "call": call})
        if found:
            parent, root = found
            links = {"child": child, "parent": parent, "root": root or parent}
            self._set_parent.run(cursor, [links])
            self._set_root.run(cursor, [links])
