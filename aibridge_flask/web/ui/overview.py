"""Overview: who spends what, what fails, how fast it is, at one glance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flask import Response, request

from ...config import Settings
from ...outbound import Outbound
from ...reading.connection import Source
from ...reading.overheads import overheads
from ..index import base_urls, root_url
from . import filters, health
from .blueprint import Question, UiBlueprint, Visit
from .charts import bar, parts_bar
from .filters import Filters
from .limits import fullest
from .pages import render
from .steps import step_of, steps
from .sums import (
    BY,
    WORDS,
    Result,
    Sums,
    cache_rate,
    cost,
    input_tokens,
    narrowed,
    over_time,
    tokens,
    total,
)

_ROWS, _LIMITS = 8, 5


def add_overview(blueprint: UiBlueprint, settings: Settings, outbounds: Sequence[Outbound]) -> None:
    @blueprint.page("/")
    def overview(visit: Visit) -> Question | Response:
        found = filters.parse(visit.arguments)
        by = visit.arguments.get("group_by", "model")
        shown = by if by in BY else "model"
        context = {
            "states": health.problems(outbounds) if visit.actor.admin else [],
            "clients": base_urls(settings, root_url(request.environ)),
        }

        def page(source: Source) -> str:
            sums = Sums(source, visit.actor, found)
            limits = fullest(source, visit.actor, _LIMITS)
            facts = {**context, **_facts(sums, shown), "limits": limits}
            return render("overview.html", visit, title="Overview", filters=found, **facts)

        return page


def _facts(sums: Sums, by: str) -> dict[str, Any]:
    found = sums.filters
    step = step_of(found)
    rows = sums.by(found.period, by)
    before = {row[by]: row for row in sums.by(found.previous, by)}
    totals = sums.totals(found.period)
    return {
        "by": by,
        "choices": BY,
        "words": WORDS,
        "totals": totals,
        "cards": _cards(sums, totals, total(sums.by(found.previous) if by == "group" else before.values())),
        "chart": over_time(sums, by, "cost_micros"),
        "links": [filters.query(narrowed(found, {step: name}, [step])) for name in steps(found)],
        "step": step,
        "rows": _rows(found, rows, by, before, totals),
        "cache": {**_cache(totals), "rate": cache_rate(sums)},
        "failures": _failures(sums),
        "times": sums.with_times("model", _ROWS),
        "tools": sums.tools(_ROWS),
        "overhead": overheads(sums.source, sums.actor, found.period),
        "narrowed": lambda row, *keys: narrowed(found, row, keys),
        "tokens": tokens,
        "cost": cost,
    }


def _cards(sums: Sums, now: Result, before: Result) -> list[dict[str, Any]]:
    """Returns name, number, the number before (0: not compared), and the kind of what stands at the top."""
    people, people_before = sums.people(sums.filters.period), sums.people(sums.filters.previous)
    numbers = (
        ("Cost", "money", cost(now), cost(before) or 0),
        ("Tokens", "count", tokens(now), tokens(before)),
        ("Requests", "count", now["requests"], before["requests"]),
        ("People", "count", people, people_before),
        ("Errors", "count", now["errors"], before["errors"]),
        ("First byte", "duration", now["first_byte_p50_ms"], 0),
    )
    return [dict(zip(("name", "kind", "now", "before"), each, strict=True)) for each in numbers]


def _rows(
    found: Filters, rows: Sequence[Result], by: str, before: dict[str, Result], totals: Result
) -> list[dict[str, Any]]:
    """Returns the dearest rows with their links, shares and what they were before."""
    return [
        {
            **row,
            "tokens": tokens(row),
            "cost": cost(row),
            "bar": bar(row["cost_micros"], totals["cost_micros"]),
            "before": before.get(row[by], {}).get("cost_micros", 0),
            "link": filters.query(narrowed(found, row, [by])),
        }
        for row in rows[:_ROWS]
    ]


def _cache(totals: Result) -> dict[str, Any]:
    """Returns where the money went, and how much of what models read came from the cache."""
    paid = ("output_micros", "cache_read_micros", "cache_write_micros", "fees_micros")
    fresh = totals["cost_micros"] - sum(totals[name] for name in paid)
    parts = [
        ("Output", totals["output_micros"], totals["output_tokens"]),
        ("Written to the cache", totals["cache_write_micros"], totals["cache_write_input_tokens"]),
        ("Read from the cache", totals["cache_read_micros"], totals["cache_read_input_tokens"]),
        ("New input", fresh, totals["input_tokens"]),
        ("Searches and fees", totals["fees_micros"], 0),
    ]
    return {
        "parts": parts,
        "bar": parts_bar("Where the money went", [(name, micros) for name, micros, _ in parts]),
        "read": totals["cache_read_input_tokens"],
        "input": input_tokens(totals),
        "saved": totals["cache_saved_micros"],
    }


def _failures(sums: Sums) -> list[Result]:
    """Returns the kinds of errors by provider, the most frequent first."""
    rows = [row for row in sums.by(sums.filters.period, "error_type", "provider_name") if row["error_type"]]
    return sorted(rows, key=lambda row: -row["requests"])
