"""`aibridge purge`: deletes now what has expired."""

from __future__ import annotations

import json

import click

from .. import config
from ..config.settings import RecordSettings
from ..records import audit, database
from ..records.leases import LeaseLost
from ..records.purge import InProgress, Purge
from ..records.retention import Expired
from .away import away_is_one_line
from .waiting import slices


@click.command()
@click.option("--dry-run", is_flag=True, help="Says what would be deleted, and deletes nothing.")
@click.option("--json", "as_json", is_flag=True, help="Prints JSON.")
def purge(dry_run: bool, as_json: bool) -> None:
    """Deletes the content of interceptions after records.retention_days, and all of them after
    records.usage_retention_days, beside the traffic. Sums stay.

    The server does so by itself, each hour.
    """
    settings = config.load({})
    engine = database.connect(settings.database_url)
    with away_is_one_line():
        database.migrate(engine)
        with slices(engine) as work:
            found = _purge(Purge(work, settings.records), dry_run)
        if not dry_run:
            counts = {"contents": found.contents, "interceptions": found.interceptions}
            audit.write(engine, audit.command_line_actor(), "purge", "", after=counts)
    click.echo(_json(found, dry_run) if as_json else _text(found, dry_run, settings.records))


def _purge(work: Purge, dry_run: bool) -> Expired:
    try:
        return work.measure() if dry_run else work.run()
    except (InProgress, LeaseLost):
        raise click.ClickException("another process deletes what has expired at this time") from None


def _text(found: Expired, dry_run: bool, settings: RecordSettings) -> str:
    done = "would be deleted" if dry_run else "deleted"
    kept = (settings.retention_days, settings.usage_retention_days)
    content, whole = (f"after {days} days" if days else "never" for days in kept)
    return (
        f"Content (prompts, thoughts, tool inputs, error messages; {content}): {found.contents}"
        f" interceptions' {done}.\nWhole interceptions ({whole}): {found.interceptions} {done}."
    )


def _json(found: Expired, dry_run: bool) -> str:
    oldest = [moment.isoformat().replace("+00:00", "Z") for moment in found.oldest]
    facts = {"contents": found.contents, "interceptions": found.interceptions, "dry_run": dry_run}
    return json.dumps({**facts, **({"oldest": oldest[0] if oldest else None} if dry_run else {})})
