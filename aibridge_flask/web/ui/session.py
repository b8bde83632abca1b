"""One session: what its agents did and when, what it cost, and the transcript."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flask import Response

from ...reading.connection import Source
from ...reading.session import Threads, session
from ...reading.timeline import MAX_MOMENTS, Moment, timeline
from ...records.sum_tables import TOKENS
from ..api.blueprint import ID
from . import texts
from .blueprint import Question, UiBlueprint, Visit
from .filters import query
from .lanes import Lane, lanes_of, picture
from .pages import render
from .tables import Row, decode

_THREADS = 50
_MAX_ACTIONS = 600
_MAX_TEXT_BYTES = 1 << 20  # of all texts on a page


def add_session(blueprint: UiBlueprint) -> None:
    @blueprint.page(f"/sessions/<{ID}:id>")
    def one_session(visit: Visit, id: str) -> Question | Response:
        asked = {name: visit.arguments.get(name, "") for name in ("initiator", "after_id", "before_id")}
        threads = Threads(_THREADS, asked["after_id"], asked["before_id"])

        def page(source: Source) -> str:
            whole = decode(session(source, visit.actor, id, asked["initiator"], threads))
            moments = timeline(source, visit.actor, id, whole["initiator"]["id"])
            title = f"Session {texts.line(id, 40)}"
            return render("session.html", visit, title=title, **_facts(whole, moments))

        return page


def _facts(whole: Row, moments: Sequence[Moment]) -> dict[str, Any]:
    lanes = lanes_of(moments)
    budget = texts.TextBudget(_MAX_TEXT_BYTES)
    return {
        "session": whole,
        "lanes": picture(moments, lanes),
        "is_cut": len(moments) == MAX_MOMENTS,
        "agents": [_agent(agent, lanes) for agent in whole["agents"]],
        "tools": _tools(moments),
        "threads": list(_shown(whole["threads"])),
        "text": budget.block,
        "attempts": {moment.id: moment.attempts for moment in moments},
        "contexts": {moment.id: moment.context for moment in moments},
        "input_of": _input,
        "links": _links(whole),
    }


def _shown(threads: Sequence[Row]) -> Iterator[Row]:
    """Yields threads with at most so many actions on the page; `hidden` is how many of each are left out."""
    left = _MAX_ACTIONS
    for thread in threads:
        actions = thread["agentic_actions"]
        yield {**thread, "agentic_actions": actions[:left], "hidden": max(0, len(actions) - left)}
        left = max(0, left - len(actions))


def _agent(agent: Row, lanes: Sequence[Lane]) -> Row:
    """Returns an agent with its newest context."""
    own = [moment for lane in lanes if lane.agent == agent["agent_id"] for moment in lane.moments]
    contexts = [moment.context for moment in own if moment.context and moment.kind == "main"]
    depth = next((lane.depth for lane in lanes if lane.agent == agent["agent_id"]), 0)
    return {
        **agent,
        "depth": depth,
        "requests": len(own),
        "errors": sum(1 for moment in own if moment.error_type),
        "tools": sum(len(moment.tools) for moment in own),
        "context": contexts[-1] if contexts else 0,
        "longest": max(contexts, default=0),
    }


def _tools(moments: Sequence[Moment]) -> list[tuple[str, int, int]]:
    """Returns each tool with its calls and failures, the most used first."""
    counts: dict[str, list[int]] = {}
    for name, has_failed in (tool for moment in moments for tool in moment.tools):
        own = counts.setdefault(name, [0, 0])
        own[0] += 1
        own[1] += has_failed
    return sorted(
        ((name, calls, failures) for name, (calls, failures) in counts.items()), key=lambda row: -row[1]
    )


def _input(usage: Mapping[str, int]) -> int:
    return sum(usage[name] for name in TOKENS if name != "output_tokens")


def _links(whole: Row) -> dict[str, str]:
    """Returns the queries of the pages of threads before and after, "" where there is none."""
    initiator = whole["initiator"]["id"]
    pairs = {"before": ("before_id", "next_before_id"), "after": ("after_id", "next_after_id")}
    return {
        place: query({"initiator": initiator, name: whole[member]}) if whole[member] else ""
        for place, (name, member) in pairs.items()
    }
