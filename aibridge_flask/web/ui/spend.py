"""Spend: sums by one or two keys over time, and from each number on to what it sums up."""

from __future__ import annotations

from typing import Any

from flask import Response

from ...reading.connection import Source
from ...reading.errors import BadQuestion
from ...reading.pages import Page
from ...reading.usage import Question as UsageQuestion
from ...reading.usage import amounts
from . import filters
from .blueprint import Question, UiBlueprint, Visit
from .charts import bar
from .filters import Filters
from .pages import render
from .steps import TIMES, label
from .sums import WORDS, Result, Sums, cost, narrowed, over_time, tokens
from .tables import position

_AMOUNTS = {"cost_micros": "Cost", "tokens": "Tokens", "requests": "Requests"}
_ROWS = 50


def add_spend(blueprint: UiBlueprint) -> None:
    @blueprint.page("/spend")
    def spend(visit: Visit) -> Question | Response:
        found = filters.parse(visit.arguments)
        keys = _keys(visit.arguments)
        asked = visit.arguments.get("amount", "")
        amount = asked if asked in _AMOUNTS else "cost_micros"

        def page(source: Source) -> str:
            sums = Sums(source, visit.actor, found)
            facts = _facts(sums, keys, position(visit.arguments))
            context = {"filters": found, "keys": keys, "chart": _chart(sums, keys, amount), **facts}
            return render("spend.html", visit, title="Spend", **_words(amount), **context)

        return page


def _words(amount: str) -> dict[str, Any]:
    return {"words": WORDS, "amounts": _AMOUNTS, "amount": amount, "label": label, "times": TIMES}


def _keys(arguments: Any) -> tuple[str, ...]:
    """Returns the keys of the URL: `group_by=model,day`, or `group_by` and `then_by` of the form."""
    asked = [*arguments.get("group_by", "model").split(","), arguments.get("then_by", "")]
    keys = tuple(dict.fromkeys(key for key in asked if key))
    if not set(keys) <= set(WORDS):
        raise BadQuestion("group_by", f"one of {', '.join(WORDS)} is expected")
    return keys[:2] or ("model",)


def _facts(sums: Sums, keys: tuple[str, ...], offset: int) -> dict[str, Any]:
    found = sums.filters
    question = UsageQuestion(keys, found.search, found.period)
    answer = amounts(sums.source, sums.actor, question, Page(_ROWS, offset))
    before = {} if set(keys) & {*TIMES, "session"} else _before(sums, keys)
    totals = answer["totals"]
    return {
        "rows": [_row(found, row, keys, totals, before) for row in answer["results"]],
        "totals": {**totals, "tokens": tokens(totals), "cost": cost(totals)},
        "count": answer["count"],
        "offset": offset,
        "page_rows": _ROWS,
        "has_trend": bool(before),
    }


def _before(sums: Sums, keys: tuple[str, ...]) -> dict[tuple[str, ...], int]:
    """Returns the costs of the period before."""
    rows = sums.amounts(sums.filters.previous, keys, ("cost_micros",))
    return {tuple(row[key] for key in keys): row["cost_micros"] for row in rows}


def _row(
    found: Filters,
    row: Result,
    keys: tuple[str, ...],
    totals: Result,
    before: dict[tuple[str, ...], int],
) -> dict[str, Any]:
    inner = narrowed(found, row, keys)
    return {
        **row,
        "tokens": tokens(row),
        "cost": cost(row),
        "bar": bar(row["cost_micros"], totals["cost_micros"]),
        "before": before.get(tuple(row[key] for key in keys), 0),
        "link": filters.query(inner),
        "errors_link": filters.query({**inner, "group_by": "error_type"}),
    }


def _chart(sums: Sums, keys: tuple[str, ...], amount: str) -> Any:
    """Returns the chart by the first key that is no time."""
    by = next((key for key in keys if key not in (*TIMES, "session")), "model")
    return over_time(sums, by, amount)
