"""`aibridge reconcile`: our costs beside the provider's bill."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import click
from sqlalchemy.exc import SQLAlchemyError

from .. import config
from ..config.settings import ProviderSettings, Settings
from ..pricing import bills
from ..pricing.comparison import Difference, compare
from ..providers import build
from ..records import database
from ..records.daily_costs import daily_costs
from .away import database_away
from .money import dollars, printable

_LINE = "{:10}  {:40}  {:>14}  {:>14}  {:>14}  {}"


@click.command()
@click.option("--provider", "name", required=True, help="The provider's name.")
@click.option("--month", required=True, type=click.DateTime(["%Y-%m"]), help="Such as 2026-11, in UTC.")
@click.option("--json", "as_json", is_flag=True, help="Prints JSON, costs in micro-dollars.")
def reconcile(name: str, month: datetime, as_json: bool) -> None:
    """Compares what is recorded with what the provider bills, day by day and model by model.

    It needs the provider's `admin_key`. Requests with users' own keys are left out.
    """
    settings = config.load({})
    provider = _find(settings, name)
    start = month.date()
    end = (start + timedelta(days=32)).replace(day=1)
    try:
        theirs = bills.fetch(provider, build(provider).base_url, start)
        ours = daily_costs(database.connect(settings.database_url), name, start, end)
    except bills.BillUnavailable as error:
        raise click.ClickException(str(error)) from None
    except SQLAlchemyError as error:
        raise database_away(error) from None
    found = compare(ours, theirs, datetime.now(UTC).date())
    click.echo(json.dumps(_to_json(name, start, found)) if as_json else _text(found))


def _find(settings: Settings, name: str) -> ProviderSettings:
    for provider in settings.providers:
        if provider.name == name:
            return provider
    raise click.UsageError(f"--provider: there is no provider {name!r}")


def _text(found: Sequence[Difference]) -> str:
    head = _LINE.format("DAY", "MODEL", "OURS US$", "THEIRS US$", "DIFFERENCE", "WHY, LIKELY").rstrip()
    lines = [_row(str(each.day), each.item, each.ours, each.theirs, each.why) for each in found]
    ours, theirs = _sums(found)
    return "\n".join([head, *lines, _row("all", "", ours, theirs, "")])


def _row(day: str, item: str, ours: int, theirs: int, why: str) -> str:
    amounts = map(dollars, (ours, theirs, theirs - ours))
    return _LINE.format(day, printable(item), *amounts, why).rstrip()


def _sums(found: Sequence[Difference]) -> tuple[int, int]:
    return sum(each.ours for each in found), sum(each.theirs for each in found)


def _to_json(name: str, month: date, found: Sequence[Difference]) -> dict[str, Any]:
    ours, theirs = _sums(found)
    lines = [
        {
            "day": str(each.day),
            "model": each.item,
            "ours_micros": each.ours,
            "theirs_micros": each.theirs,
            "difference_micros": each.micros,
            "why": each.why,
        }
        for each in found
    ]
    sums = {"ours_micros": ours, "theirs_micros": theirs, "difference_micros": theirs - ours}
    return {"provider": name, "month": f"{month:%Y-%m}", "lines": lines, **sums}
