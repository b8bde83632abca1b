"""`aibridge token`: gateway tokens, for mode `token`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import click

from ..model import identifier
from ..records import audit, tokens
from .away import away_is_one_line
from .engine import migrated_engine

_LINE = "{:36}  {:24}  {:13}  {:7}  {:20}  {:20}  {:20}  {}"
_HEADINGS = ("ID", "USER", "TOKEN", "ADMIN", "EXPIRES", "LAST USED", "REVOKED", "GROUPS")


@click.group()
def token() -> None:
    """Gateway tokens."""


@token.command()
@click.option("--user", required=True, help="Who uses it: the actor's id in all records.")
@click.option("--group", "groups", multiple=True, help="A group of the user's; may be given several times.")
@click.option("--admin", is_flag=True, help="May read everybody's records.")
@click.option("--days", type=click.IntRange(min=0), default=0, help="Days of validity; 0: for ever.")
@click.option("--json", "as_json", is_flag=True, help="Prints JSON: as `list --json`, with the `token`.")
def create(user: str, groups: tuple[str, ...], admin: bool, days: int, as_json: bool) -> None:
    """Prints a new token, which is shown this once."""
    names = [_checked("--user", user), *(_checked("--group", group) for group in groups)]
    with away_is_one_line():
        engine, actor = migrated_engine(), audit.command_line_actor()
        made = tokens.create(engine, names[0], admin, days, names[1:], by=actor)
        (row,) = tokens.find_by_digest(engine, tokens.digest(made))
    click.echo(json.dumps({**_to_json(row), "token": made}) if as_json else made)


@token.command("list")
@click.option("--json", "as_json", is_flag=True, help="Prints JSON.")
def list_(as_json: bool) -> None:
    """Lists all tokens, never their text."""
    with away_is_one_line():
        listed = list(tokens.list_tokens(migrated_engine()))
    click.echo(json.dumps([_to_json(each) for each in listed]) if as_json else _table(listed))


@token.command()
@click.argument("id")
def revoke(id: str) -> None:
    """Revokes the token of this ID; workers that know it stop within 30 seconds."""
    with away_is_one_line():
        was_valid = tokens.revoke(migrated_engine(), id, by=audit.command_line_actor())
    if not was_valid:
        raise click.ClickException(f"there is no token {id} that is not revoked")
    click.echo(f"Token {id} is revoked.")


def _checked(option: str, name: str) -> str:
    text = name.strip()
    if not text or not text.isprintable() or text != identifier(text):
        raise click.UsageError(f"{option}: one line of text is expected")
    return text


def _table(listed: Iterable[tokens.Token]) -> str:
    lines = [_LINE.format(*_HEADINGS)]
    for each in listed:
        times = map(_format_time, (each.expires_at, each.last_used_at, each.revoked_at))
        flag = "admin" if each.admin else ""
        lines.append(_LINE.format(each.id, each.user, each.hint, flag, *times, ",".join(each.groups)))
    return "\n".join(line.rstrip() for line in lines)


def _to_json(listed: tokens.Token) -> dict[str, Any]:
    times = {name: getattr(listed, name) for name in ("expires_at", "last_used_at", "revoked_at")}
    return {
        "id": listed.id,
        "user": listed.user,
        "groups": list(listed.groups),
        "admin": listed.admin,
        "hint": listed.hint,
        "created_at": _format_time((listed.created_at,)),
        **{name: _format_time(moment) if moment else None for name, moment in times.items()},
    }


def _format_time(moment: tuple[datetime, ...]) -> str:
    return moment[0].strftime("%Y-%m-%dT%H:%M:%SZ") if moment else "-"
