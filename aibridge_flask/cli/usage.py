"""`aibridge usage`: sums of tokens and cost, as `GET usage` gives them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import IO, Any

import click
from sqlalchemy import Engine

from ..model import Actor
from ..reading import focus
from ..reading import usage as queries
from ..reading.csv_file import write_csv
from ..reading.grouping import KEYS, MAX_KEYS
from ..reading.pages import Page
from ..reading.periods import Period
from ..reading.usage import Question
from ..reading.values import encode
from ..records.sum_tables import AMOUNTS
from .away import away_is_one_line
from .engine import migrated_engine
from .money import dollars, printable

_DATES = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"])
_EVERYBODY = Actor("", admin=True)
_ROWS = 10_000
_HEADINGS = ("REQUESTS", "ERRORS", "INPUT", "CACHE READ", "CACHE WRITE", "OUTPUT", "COST US$", "UNPRICED")
_COUNTS = (
    *("requests", "errors", "input_tokens", "cache_read_input_tokens", "cache_write_input_tokens"),
    "output_tokens",
)


@click.command()
@click.option("--group-by", default="", help=f"Up to {MAX_KEYS}, with commas between them: {' '.join(KEYS)}.")
@click.option("--since", type=_DATES, help="From this time on (UTC).")
@click.option("--until", type=_DATES, help="Before this time (UTC).")
@click.option("--format", type=click.Choice(["table", "json", "csv", "focus"]), default="table")
@click.option("--json", "format", flag_value="json", help="As --format json.")
def usage(group_by: str, since: datetime | None, until: datetime | None, format: str) -> None:
    """Shows what was used and what it cost, of everybody, ordered by cost."""
    after, before = (tuple(each.replace(tzinfo=UTC) for each in (end,) if each) for end in (since, until))
    question = Question(_keys(group_by), period=Period(after, before))
    with away_is_one_line():
        engine = migrated_engine()
        if format in ("csv", "focus"):
            with _file(engine, question, format) as file:
                for line in file:
                    click.echo(line, nl=False)
            return
        found = queries.usage_report(engine, _EVERYBODY, question, Page(_ROWS))
    click.echo(encode(found) if format == "json" else "\n".join(_lines(found, question.keys)))


def _keys(text: str) -> tuple[str, ...]:
    keys = tuple(dict.fromkeys(filter(None, (key.strip() for key in text.split(",")))))
    unknown = [key for key in keys if key not in KEYS]
    if unknown or len(keys) > MAX_KEYS:
        expected = f"up to {MAX_KEYS} of {' '.join(KEYS)}"
        raise click.UsageError(f"--group-by: {expected} are expected, not {', '.join(unknown or keys)}")
    return keys


def _file(engine: Engine, question: Question, format: str) -> IO[bytes]:
    if format == "focus":
        asked = Question(focus.KEYS, question.search, question.period)
        rows = focus.focus_rows(queries.every_amount(engine, _EVERYBODY, asked))
        return write_csv(focus.COLUMNS, rows)
    names = (*question.keys, *AMOUNTS, "sessions", *queries.PERCENTILES)
    return write_csv(names, queries.every_usage(engine, _EVERYBODY, question))


def _lines(found: dict[str, Any], keys: Sequence[str]) -> Iterator[str]:
    rows = [[*(key.upper() for key in keys), *_HEADINGS]]
    rows += [_row([result[key] for key in keys], result) for result in found["results"] if keys]
    rows.append(_row(["all", *[""] * (len(keys) - 1)] if keys else [], found["totals"]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        aligned = [f"{cell:{w}}" if i < len(keys) else f"{cell:>{w}}" for i, (cell, w) in enumerate(cells)]
        yield "  ".join(aligned).rstrip()
    if found["count"] > len(found["results"]) and keys:
        yield f"There are more rows: {len(found['results'])} are shown. `--format csv` has all."
    if found["unpriced_models"]:
        yield f"Without a price: {', '.join(map(printable, found['unpriced_models']))}"


def _row(names: Sequence[Any], sums: dict[str, Any]) -> list[str]:
    counts = [f"{sums[name]:,}" for name in _COUNTS]
    unpriced = f"{sums['unpriced_requests']:,}"
    return [*(printable(str(name)) for name in names), *counts, _cost(sums), unpriced]


def _cost(sums: dict[str, Any]) -> str:
    """Returns the cost of what has a price; what has none is not free."""
    micros = sums["cost_micros"]
    return dollars(micros) if micros or not sums["unpriced_requests"] else "unpriced"
