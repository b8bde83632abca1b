"""`aibridge limit`: limits that were made at run time, and how much of all is used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from time import time
from typing import Any

import click
from marshmallow import ValidationError

from ..config.limits import UNITS, LimitSchema, scope_of_text
from ..limits import changes
from ..limits.standing import standings
from ..records import audit
from .away import away_is_one_line
from .engine import migrated_engine

_LINE = "{:24}  {:20}  {:22}  {:8}  {:24}  {:>14}  {:>14}  {}"
_HEADINGS = ("NAME", "SCOPE", "AMOUNT", "MODE", "OF", "SPENT", "HELD", "RESETS")


@click.group()
def limit() -> None:
    """Limits on what people spend."""


@limit.command()
@click.option("--name", required=True, help="What it is known by, on all hosts.")
@click.option("--scope", required=True, help="`everyone`, or such as `actor=alice`, `group=g`, `session=*`.")
@click.option("--shared", is_flag=True, help="The members of a group have one pool.")
@click.option("--per", default="", help="minute, hour, day, week, month or total; none for --parallel.")
@click.option("--usd", type=float, help="US$.")
@click.option("--tokens", type=int, help="Tokens of all kinds.")
@click.option("--requests", type=int, help="Requests that reach an upstream.")
@click.option("--parallel", type=int, help="Requests at a time.")
@click.option("--model", "models", multiple=True, help="A model; may end in `*`, may be given several times.")
@click.option("--provider", "providers", multiple=True, help="A provider's name.")
@click.option("--client", "clients", multiple=True, help="A client's name.")
@click.option("--instead", multiple=True, help="A model that may be used when the limit is used up.")
@click.option("--mode", default="enforce", help="shadow, warn or enforce.")
@click.option("--credential", default="centralized", help="centralized or any.")
@click.option("--until", help="When it ends, as 2026-12-24T00:00:00Z.")
@click.option("--json", "as_json", is_flag=True, help="Prints JSON.")
def add(scope: str, shared: bool, as_json: bool, **members: Any) -> None:
    """Makes a limit. It holds on all hosts within 5 seconds."""
    tree = {name: list(value) if isinstance(value, tuple) else value for name, value in members.items()}
    tree = {name: value for name, value in tree.items() if value is not None}
    try:
        settings = LimitSchema().load({**tree, "scope": scope_of_text(scope, shared)})
    except ValidationError as error:
        raise click.UsageError("; ".join(_lines(error.messages))) from None
    with away_is_one_line():
        try:
            made = changes.add(migrated_engine(), settings, audit.command_line_actor())
        except changes.LimitExists as error:
            raise click.ClickException(error.message) from None
    click.echo(json.dumps({"id": made.id, "name": made.name}) if as_json else f'Limit "{made.name}" is made.')


@limit.command("list")
@click.option("--json", "as_json", is_flag=True, help="Prints JSON.")
def list_(as_json: bool) -> None:
    """Lists the limits in effect, with what is used of them."""
    with away_is_one_line(), migrated_engine().connect() as connection:
        found = standings(connection)
    click.echo(json.dumps(found) if as_json else _table(found))


@limit.command()
@click.argument("name")
def remove(name: str) -> None:
    """Ends the limit of this NAME or id."""
    with away_is_one_line():
        try:
            ended = changes.end(migrated_engine(), name, audit.command_line_actor())
        except (changes.NoSuchLimit, changes.LimitOfFile) as error:
            raise click.ClickException(error.message) from None
    click.echo(f'Limit "{ended.name}" is ended.')


@limit.command()
@click.option("--json", "as_json", is_flag=True, help="Prints the names of the limits as JSON.")
def rebuild(as_json: bool) -> None:
    """Counts anew what was spent of each limit in its present period."""
    begin = time()
    with away_is_one_line():
        names = changes.rebuild_all(migrated_engine())
    told = f"{len(names)} limits are counted anew, in {time() - begin:.1f} s."
    click.echo(json.dumps(names) if as_json else told)


def _lines(messages: Any) -> list[str]:
    names = {"_schema": "limit"}
    return [f"{names.get(name, f'--{name}')}: {_first(found)}" for name, found in messages.items()]


def _first(messages: Any) -> str:
    while isinstance(messages, list | Mapping):
        messages = next(iter(messages.values() if isinstance(messages, Mapping) else messages))
    return str(messages)


def _table(found: list[dict[str, Any]]) -> str:
    lines = [_LINE.format(*_HEADINGS)]
    for each in found:
        unit = next(unit for unit in UNITS if unit in each)
        amount = f"{each[unit]:,} {unit}" + (f" per {each['per']}" if "per" in each else "")
        whom = (
            each["scope"] if isinstance(each["scope"], str) else "=".join(next(iter(each["scope"].items())))
        )
        named = (each["name"], whom, amount, each["mode"])
        for used in each["used"] or [{"of": "", "spent": 0, "held": 0, "resets_at": None}]:
            counts = (_shown(unit, used["spent"]), _shown(unit, used["held"]), used["resets_at"] or "")
            lines.append(_LINE.format(*named, used["of"], *counts))
    return "\n".join(line.rstrip() for line in lines)


def _shown(unit: str, amount: int) -> str:
    return f"{amount / 1_000_000:,.4f}" if unit == "usd" else f"{amount:,}"
