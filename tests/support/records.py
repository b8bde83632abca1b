"""Recorders in this process and in others, and what they have written."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from aibridge_flask import config
from aibridge_flask.model import new_id
from aibridge_flask.records import database as databases
from aibridge_flask.records import frames, tables
from aibridge_flask.records.events import Ended, Event, Started, now
from aibridge_flask.records.recorder import Recorder
from tests.support.server import wait_until


def settings(url: str, **tree: object) -> Any:
    return config.load({"database_url": url, **tree})


def started(id: str, actor: str = "ann", **members: Any) -> Started:
    return Started(id, actor, now(), **members)


def rows(url: str, table: sa.Table = tables.interceptions) -> list[sa.RowMapping]:
    """All rows of a table; none if there is no table yet."""
    engine = databases.connect(url)
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table(table.name):
            return []
        return list(connection.execute(sa.select(table).order_by(*table.primary_key)).mappings())


def statuses(url: str) -> dict[str, Any]:
    """The status code of each interception."""
    return {row["id"]: row["status_code"] for row in rows(url)}


def is_applied(recorder: Recorder) -> bool:
    return recorder.backlog().bytes == 0


@contextlib.contextmanager
def locked(url: str) -> Iterator[None]:
    """Another client holds a lock that no writer gets past."""
    engine = databases.connect(url)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("LOCK TABLE interceptions IN EXCLUSIVE MODE"))
        yield


# A worker forks off a process that has imported what it needs: it takes a tenth of the time of a new interpreter.
_workers = multiprocessing.get_context("forkserver")
_workers.set_forkserver_preload([__name__])


def killed_worker(tree: dict[str, object], *events: Event) -> None:
    """Records the events in a process that is then killed."""
    arguments = (tree, frames.encode(events, 0.0), dict(os.environ))
    process = _workers.Process(target=_record_and_die, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def _record_and_die(tree: dict[str, object], encoded: bytes, environ: dict[str, str]) -> None:
    """`environ` is that of the test: the process it is forked off has that of another one."""
    os.environ.clear()
    os.environ.update(environ)
    recorder = Recorder(config.load(tree))
    calls = {Started: recorder.begin, Ended: recorder.end}
    (frame,), _, _ = frames.decode(encoded, 0, True)
    for event in frame.events:
        calls.get(type(event), recorder.record)(event)
    os.kill(os.getpid(), signal.SIGKILL)


def write_dead_workers_spool(folder: Path, *lines: bytes) -> None:
    """Writes what a killed worker leaves in the spool folder."""
    folder.mkdir(exist_ok=True)
    id = new_id()
    (folder / f"{id}.lock").touch()
    (folder / f"{id}.spool").write_bytes(b"".join(lines))


__all__ = [
    "killed_worker",
    "locked",
    "rows",
    "settings",
    "started",
    "statuses",
    "wait_until",
    "write_dead_workers_spool",
]
