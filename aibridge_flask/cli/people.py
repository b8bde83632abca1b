"""`aibridge export` and `aibridge erase`: a person's records."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection
from pathlib import Path
from time import monotonic

import click
from sqlalchemy import Engine

from .. import config
from ..config.settings import Settings
from ..records import audit, backlog, database, log_folder, tombstones
from ..records.erasure import Erased, Erasure
from ..records.export import export as export_records
from ..records.file_erasure import ErasedFiles, FileErasure
from ..records.slices import Slices
from ..upstream.dump_file import delete_dumps
from .away import away_is_one_line
from .waiting import slices

_APPLY_SECONDS = 10.0  # that workers have to bring their logs to the database
_POLL_SECONDS = 0.1


@click.command()
@click.option("--actor", required=True, help="The person's id in the records.")
def export(actor: str) -> None:
    """Prints all of a person's records, a JSON object a line."""
    engine = database.connect(config.load({}).database_url)
    with away_is_one_line():
        database.migrate(engine)
        audit.write(engine, audit.command_line_actor(), "export", actor)
        with slices(engine) as work:
            for value in export_records(work, actor):
                click.echo(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


@click.command()
@click.option("--actor", required=True, help="The person's id in the records.")
@click.option("--yes", is_flag=True, help="Does not ask.")
@click.option("--json", "as_json", is_flag=True, help="Prints JSON.")
def erase(actor: str, yes: bool, as_json: bool) -> None:
    """Deletes what a person wrote, and the person's name, everywhere on this host and in the database.

    Tokens are deleted; what was used and what it cost stays, under the name `erased`. What a log of another
    host brings later is treated alike.
    """
    if actor == tombstones.ERASED or not actor:
        raise click.UsageError("--actor: the id of a person is expected")
    _confirm(actor, yes)
    settings = config.load({})
    engine = database.connect(settings.database_url)
    folder = log_folder.prepare(settings.spool_dir, engine.url)
    with away_is_one_line():
        database.migrate(engine)
        with slices(engine) as work:
            erasure = Erasure(work, actor)
            ids = erasure.find_interceptions()
            dumps = _delete_dumps(settings, ids)
            erased = erasure.run()
            files = _erase_files(work, folder, actor, ids)
        audit.write(engine, audit.command_line_actor(), "erase", tombstones.digest(actor)[:16])
    click.echo(_json(erased, files, dumps) if as_json else _text(erased, files, dumps))
    if files.unapplied or not erased.is_traceless:
        raise click.ClickException(_left(files))


def _confirm(actor: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("--yes is needed where nobody can be asked")
    click.confirm(f"Erase all that {actor!r} wrote, and the name? It cannot be undone", abort=True)


def _delete_dumps(settings: Settings, ids: Collection[str]) -> int:
    folders = {provider.api_dump_dir for provider in settings.providers} - {""}
    return sum(delete_dumps(Path(folder), frozenset(ids)) for folder in sorted(folders))


def _erase_files(work: Slices, folder: Path, actor: str, ids: Collection[str]) -> ErasedFiles:
    """Waits until the workers have brought what is in the logs to the database, if they do."""
    identities = (_database_id(work.engine), log_folder.url_identity(work.engine.url))
    end = monotonic() + _APPLY_SECONDS
    while backlog.measure(folder, identities).bytes and monotonic() < end:
        work.pause(_POLL_SECONDS)
    return FileErasure(folder, identities, actor, ids).run()


def _database_id(engine: Engine) -> str:
    with engine.connect() as connection:
        return database.read_info(connection)["database_id"]


def _text(erased: Erased, files: ErasedFiles, dumps: int) -> str:
    return (
        f"Erased: {erased.interceptions} interceptions' content and name, {erased.tokens} gateway tokens,"
        f" {erased.stored_objects} stored objects.\n"
        f"On this host: {files.frames} places of the logs, {files.lines} rejected events, {dumps} dumps."
    )


def _json(erased: Erased, files: ErasedFiles, dumps: int) -> str:
    return json.dumps(
        {
            "interceptions": erased.interceptions,
            "tokens": erased.tokens,
            "stored_objects": erased.stored_objects,
            "log_places": files.frames,
            "rejected_events": files.lines,
            "dumps": dumps,
            "unapplied": files.unapplied,
            "is_traceless": erased.is_traceless,
        }
    )


def _left(files: ErasedFiles) -> str:
    if files.unapplied:
        return f"{files.unapplied} places of this host's logs are not in the database yet: run it again later"
    return "a reader keeps SQLite's write-ahead log, which still has traces: run it again later"
