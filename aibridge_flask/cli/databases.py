"""`aibridge db`: the tables of the record database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from .. import config
from ..formats.body import dumps
from ..limits.changes import rebuild_all
from ..limits.check import compare as compare_ledger
from ..records import additions, backlog, database, log_folder
from ..records.sum_check import Comparison, SumCheck
from .away import database_away

_MAX_LINES = 20


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
@click.option("--repair", is_flag=True, help="Adds what is missing, and corrects the sums.")
@click.option("--json", "as_json", is_flag=True, help="Prints one JSON object.")
def check(repair: bool, as_json: bool) -> None:
    """Compares the tables with this version, and the sums with what they sum.

    Says how far the database is behind this host's logs. Exits with 1 if anything is not as it should be.
    """
    engine, settings = _engine(), config.load({})
    try:
        found = _check(engine, repair)
    except SQLAlchemyError as error:
        raise database_away(error) from None
    behind = backlog.measure(log_folder.prepare(settings.spool_dir, engine.url))
    facts = {"version": database.VERSION, **found, "behind": {"events": behind.events, "bytes": behind.bytes}}
    click.echo(dumps(facts).decode() if as_json else "\n".join(_lines(facts)))
    if found["missing"] or found["differences"] or found["unsummed"]:
        raise SystemExit(1)


def _check(engine: Engine, repair: bool) -> dict[str, Any]:
    """Returns what is wrong, after a repair what is left. Raises SQLAlchemyError."""
    if repair:
        database.migrate(engine, repair=True)
        additions.create_indexes(engine)
    missing = additions.missing(engine)
    sums = SumCheck(engine)
    compared = Comparison() if missing else sums.compare()
    if repair and compared != Comparison():
        sums.repair(compared)
        compared = sums.compare()
    ledger = [] if missing else compare_ledger(engine)
    if repair and ledger:
        rebuild_all(engine)
        ledger = compare_ledger(engine)
    differences = [
        {"table": str(each.table.name), "key": each.key, "missing": each.missing}
        for each in compared.differences
    ]
    differences += [
        {
            "table": "ledger",
            "key": (each.limit, each.subject, each.bucket),
            "missing": {"spent": each.missing},
        }
        for each in ledger
    ]
    return {"missing": missing, "differences": differences, "unsummed": len(compared.unsummed)}


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"missing: {name}" for name in facts["missing"])
    for difference in facts["differences"][:_MAX_LINES]:
        amounts = ", ".join(f"{name} {amount:+}" for name, amount in difference["missing"].items())
        yield f"wrong sum in {difference['table']} {difference['key']}: to be added are {amounts}"
    behind = facts["behind"]
    yield f"Records that are not in the database yet: {behind['events']} ({behind['bytes']} bytes)."
    if facts["missing"]:
        yield "The tables are not of this version: run `aibridge db upgrade`."
        return
    yield f"The database has the tables of version {facts['version']}."
    if facts["unsummed"]:
        yield f"Interceptions that are not summed, or have changed since: {facts['unsummed']}."
    if facts["differences"] or facts["unsummed"]:
        yield f"Sums that are wrong: {len(facts['differences'])}. `aibridge db check --repair` corrects them."
    else:
        yield "The sums are right."


def _engine() -> Engine:
    return database.connect(config.load({}).database_url)
