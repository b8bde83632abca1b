"""`aibridge reprice`: costs by today's prices."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import click
from sqlalchemy.exc import SQLAlchemyError

from .. import config
from ..pricing import PriceList
from ..records import database
from ..records.events import EPOCH
from ..records.repricing import Repriced, Repricing, Selection
from .away import database_away
from .money import dollars, printable

_LINE = "{:40}  {:>8}  {:>14}  {:>14}  {:>14}"
_DATES = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"])


@dataclass
class _Sum:
    """Of the interceptions of a model whose cost has changed, in micro-dollars."""

    changed: int = 0
    before: int = 0
    after: int = 0

    def add(self, repriced: Repriced) -> None:
        self.changed += 1
        self.before += repriced.before or 0
        self.after += repriced.after or 0


@dataclass
class _Report:
    looked_at: int = 0
    models: dict[str, _Sum] = field(default_factory=dict)
    all: _Sum = field(default_factory=_Sum)

    def add_all(self, found: Iterable[Repriced]) -> None:
        for repriced in found:
            self.looked_at += 1
            if repriced.is_changed:
                self.models.setdefault(repriced.model, _Sum()).add(repriced)
                self.all.add(repriced)

    def to_json(self) -> dict[str, Any]:
        sums = [{"model": model, **vars(self.models[model])} for model in sorted(self.models)]
        return {"looked_at": self.looked_at, "changed": self.all.changed, "models": sums}


@click.command()
@click.option("--since", type=_DATES, help="Only interceptions that started then or later (UTC).")
@click.option("--model", default="", help="Only those of this model, asked for or served; it may end in `*`.")
@click.option("--unpriced", is_flag=True, help="Only those without a whole price.")
@click.option("--dry-run", is_flag=True, help="Shows what would change, and changes nothing.")
@click.option("--json", "as_json", is_flag=True, help="Prints JSON, costs in micro-dollars.")
def reprice(since: datetime | None, model: str, unpriced: bool, dry_run: bool, as_json: bool) -> None:
    """Prices interceptions anew by today's settings and lists, beside the traffic."""
    settings = config.load({})
    engine = database.connect(settings.database_url)
    selection = Selection(since.replace(tzinfo=UTC) if since else EPOCH, model, unpriced)
    report = _Report()
    try:
        database.migrate(engine)
        report.add_all(Repricing(engine, PriceList(settings), dry_run=dry_run).run(selection))
    except SQLAlchemyError as error:
        raise database_away(error) from None
    click.echo(json.dumps({**report.to_json(), "dry_run": dry_run}) if as_json else _text(report, dry_run))


def _text(report: _Report, dry_run: bool) -> str:
    done = "would change" if dry_run else "changed"
    last = f"{report.looked_at} interceptions looked at, {report.all.changed} {done}."
    if not report.models:
        return last
    head = _LINE.format("MODEL", "CHANGED", "BEFORE US$", "AFTER US$", "DIFFERENCE")
    lines = [_row(model, report.models[model]) for model in sorted(report.models)]
    return "\n".join([head, *lines, _row("all", report.all), last])


def _row(model: str, sums: _Sum) -> str:
    amounts = map(dollars, (sums.before, sums.after, sums.after - sums.before))
    return _LINE.format(printable(model), sums.changed, *amounts)
