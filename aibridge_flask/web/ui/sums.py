"""Sums for pages: rows of usage added up by what a page shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ...model import Actor
from ...reading import tools as tool_queries
from ...reading import usage as queries
from ...reading.connection import Source
from ...reading.pages import Page
from ...reading.periods import Period
from ...reading.usage import Question
from ...records.sum_tables import AMOUNTS, TOKENS
from .charts import MAX_SERIES, OTHER, Chart, Series, largest
from .filters import Filters
from .numbers import count, money
from .steps import TIMES, label, period_of, step_of, steps

Result = dict[str, Any]
BY = {
    "model": "Model",
    "initiator": "Person",
    "group": "Group",
    "client": "Client",
    "provider_name": "Provider",
}
"""What charts may be stacked by."""

WORDS = {
    **BY,
    "provider": "Type of provider",
    "credential_kind": "Whose key",
    "error_type": "Error",
    "session": "Session",
    "day": "Day",
    "hour": "Hour",
    "month": "Month",
}


@dataclass(frozen=True, slots=True)
class Sums:
    """Asks for what an actor may see."""

    source: Source
    actor: Actor
    filters: Filters

    def totals(self, period: Period) -> Result:
        """Returns sums, sessions and percentiles."""
        question = Question((), self.filters.search, period)
        totals: Result = queries.usage(self.source, self.actor, question, Page(1))["totals"]
        return totals

    def by(self, period: Period, *keys: str) -> list[Result]:
        """Returns sums by the keys, the dearest first."""
        rows = self.amounts(period, keys)
        return sorted(rows, key=lambda row: (-row["cost_micros"], -row["requests"], *map(row.get, keys)))

    def amounts(
        self,
        period: Period,
        keys: tuple[str, ...],
        names: Sequence[str] = AMOUNTS,
        kept: Sequence[str] = (),
    ) -> list[Result]:
        """Returns some of these sums, in no order. `kept`: all other values of the last key are one, None."""
        question = Question(keys, self.filters.search, period)
        return queries.sums(self.source, self.actor, question, names, kept)

    def people(self, period: Period) -> int:
        """Returns how many people have asked anything."""
        question = Question(("initiator",), self.filters.search, period)
        return queries.count_results(self.source, self.actor, question)

    def tools(self, limit: int) -> list[Result]:
        """Returns sums of tool calls by tool and server, the most used first."""
        question = Question((), self.filters.search, self.filters.period)
        return tool_queries.most_used(self.source, self.actor, question, limit)

    def with_times(self, key: str, limit: int) -> list[Result]:
        """Returns sums by the key with percentiles, the dearest first."""
        question = Question((key,), self.filters.search, self.filters.period)
        answer = queries.usage(self.source, self.actor, question, Page(limit), with_sessions=False)
        return list(answer["results"])


def tokens(row: Result) -> int:
    return sum(row[name] for name in TOKENS)


def input_tokens(row: Result) -> int:
    """Returns all that models have read, from the cache or not."""
    return tokens(row) - int(row["output_tokens"])


def cost(row: Result) -> int | None:
    """Returns the cost, None if no price is known of anything in it."""
    is_unpriced = row["requests"] and row["requests"] == row["unpriced_requests"] and not row["cost_micros"]
    return None if is_unpriced else row["cost_micros"]


def total(rows: Iterable[Result]) -> Result:
    """Returns the sum of rows."""
    found: Result = dict.fromkeys(AMOUNTS, 0)
    for row in rows:
        for name in AMOUNTS:
            found[name] += row[name]
    return found


def over_time(sums: Sums, by: str, amount: str) -> Chart:
    """Returns the chart of an amount by the day or hour, stacked by a key."""
    step, names = step_of(sums.filters), steps(sums.filters)
    shows_money = amount == "cost_micros"
    title = f"{'Cost in US$' if shows_money else amount.capitalize()} by {step} and {WORDS[by].lower()}"
    series = _series(sums, by, TOKENS if amount == "tokens" else (amount,))
    unit = "US$" if shows_money else amount
    return Chart(title, unit, [*map(label, names)], series, _show_money if shows_money else count)


def _series(sums: Sums, by: str, parts: Sequence[str]) -> list[Series]:
    step = step_of(sums.filters)
    place = {name: number for number, name in enumerate(steps(sums.filters))}
    values: dict[Any, list[float]] = {}
    for row in sums.amounts(sums.filters.period, (step, by), parts, _kept(sums, by, parts)):
        if row[step] in place:
            own = values.setdefault(row[by], [0.0] * len(place))
            own[place[row[step]]] += sum(row[name] for name in parts)
    others = values.pop(None, ())
    series = largest([Series(name or "none", values[name]) for name in sorted(values)])
    return [*series, Series(OTHER, others)] if others else series


def _kept(sums: Sums, by: str, parts: Sequence[str]) -> list[str]:
    """Returns the values that a chart shows, if there are more: people are many."""
    rows = sums.amounts(sums.filters.period, (by,), parts) if by != "group" else []
    ranked = sorted(rows, key=lambda row: (-sum(row[name] for name in parts), row[by]))
    return [row[by] for row in ranked[:MAX_SERIES]] if len(rows) > MAX_SERIES else []


def cache_rate(sums: Sums) -> Chart:
    """Returns the chart of how much of what models have read came from the cache, by the day or hour."""
    step, names = step_of(sums.filters), steps(sums.filters)
    rates = {row[step]: _rate(row) for row in sums.amounts(sums.filters.period, (step,), TOKENS)}
    series = [Series("Read from the cache", [rates.get(name, 0.0) for name in names])]
    return Chart(f"Read from the cache by {step}", "% of input", [*map(label, names)], series, _show_percent)


def _rate(row: Result) -> float:
    return 100 * float(row["cache_read_input_tokens"]) / (input_tokens(row) or 1)


def _show_percent(value: float) -> str:
    return f"{value:.0f} %"


def _show_money(micros: float) -> str:
    return money(round(micros))


def narrowed(filters: Filters, row: Result, keys: Iterable[str]) -> dict[str, str]:
    """Returns the parameters of a URL that shows what a row sums up."""
    parameters = filters.whole()
    for key in keys:
        if key in TIMES:
            parameters |= _within(parameters, period_of(row[key]))
        else:
            parameters["session_id" if key == "session" else key] = row[key]
    return parameters


def _within(outer: dict[str, str], inner: dict[str, str]) -> dict[str, str]:
    """Returns the period that both have; times of this form sort as text."""
    begin = max(outer["started_after"], inner["started_after"])
    end = min(outer.get("started_before", inner["started_before"]), inner["started_before"])
    return {"started_after": begin, "started_before": end}
