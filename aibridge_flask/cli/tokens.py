"""`aibridge token`: gateway tokens, for mode `token`."""

from __future__ import annotations

from datetime import datetime

import click
from sqlalchemy import Engine

from .. import config
from ..records import database, tokens

_LINE = "{:36}  {:24}  {:13}  {:7}  {:20}  {:20}  {:20}"


def _engine() -> Engine:
    engine = database.connect(config.load({}).database_url)
    database.migrate(engine)
    return engine


@click.group()
def token() -> None:
    """Gateway tokens."""


@token.command()
@click.option("--user", required=True, help="Who uses it: the actor's id in all records.")
@click.option("--admin", is_flag=True, help="May read everybody's records.")
@click.option("--days", type=click.IntRange(min=0), default=0, help="Days of validity; 0: for ever.")
def create(user: str, admin: bool, days: int) -> None:
    """Prints a new token, which is shown this once."""
    if not user.strip() or not user.isprintable():
        raise click.UsageError("--user: one line of text is expected")
    click.echo(tokens.create(_engine(), user.strip(), admin, days))


@token.command("list")
def list_() -> None:
    """Lists all tokens, never their text."""
    click.echo(_LINE.format("ID", "USER", "TOKEN", "ADMIN", "EXPIRES", "LAST USED", "REVOKED").rstrip())
    for listed in tokens.list_tokens(_engine()):
        times = (
            _format_time(listed.expires_at),
            _format_time(listed.last_used_at),
            _format_time(listed.revoked_at),
        )
        line = _LINE.format(listed.id, listed.user, listed.hint, "admin" if listed.admin else "", *times)
        click.echo(line.rstrip())


@token.command()
@click.argument("id")
def revoke(id: str) -> None:
    """Revokes the token of this ID; workers that know it stop within 30 seconds."""
    if not tokens.revoke(_engine(), id):
        raise click.ClickException(f"there is no token {id} that is not revoked")


def _format_time(moment: tuple[datetime, ...]) -> str:
    return moment[0].strftime("%Y-%m-%dT%H:%M:%SZ") if moment else "-"
