"""`aibridge db`: the tables of the record database."""

from __future__ import annotations

import click
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from .. import config
from ..records import additions, backlog, database, log_folder
from .away import database_away


@click.group("db")
def db() -> None:
    """The record database."""


@db.command()
def upgrade() -> None:
    """Makes the tables and indexes of this version, or adds what is missing."""
    engine = _engine()
    try:
        database.migrate(engine)
        has_indexes = additions.create_indexes(engine)
    except SQLAlchemyError as error:
        raise database_away(error) from None
    if not has_indexes:
        raise click.ClickException(
            "another process builds the indexes: `aibridge db check` says if they exist"
        )
    click.echo(f"The database has the tables of version {database.VERSION}.")


@db.command()
@click.option("--repair", is_flag=True, help="Adds what is missing.")
def check(repair: bool) -> None:
    """Compares the tables with this version; says how far the database is behind this host's logs."""
    engine = _engine()
    try:
        if repair:
            database.migrate(engine, repair=True)
            additions.create_indexes(engine)
        missing = additions.missing(engine)
    except SQLAlchemyError as error:
        raise database_away(error) from None
    for name in missing:
        click.echo(f"missing: {name}")
    settings = config.load({})
    behind = backlog.measure(log_folder.prepare(settings.spool_dir, engine.url))
    click.echo(f"Records that are not in the database yet: {behind.events} ({behind.bytes} bytes).")
    if missing:
        raise click.ClickException("the tables are not of this version: run `aibridge db upgrade`")
    click.echo(f"The database has the tables of version {database.VERSION}.")


def _engine() -> Engine:
    return database.connect(config.load({}).database_url)
