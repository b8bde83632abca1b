"""Recorders in this process and in others, and what they have written."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from aibridge_flask import config
from aibridge_flask.model import new_id
from aibridge_flask.records import database as databases
from aibridge_flask.records import tables
from aibridge_flask.records.events import Started, now
from aibridge_flask.records.recorder import Recorder
from tests.support.server import ROOT, wait_until


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


_KILLED = """
import json, os, signal, sys
from aibridge_flask import config
from aibridge_flask.model import Usage
from aibridge_flask.records.events import Ended, Started, TokenUsage, ToolUsage, now
from aibridge_flask.records.recorder import Recorder
recorder = Recorder(config.load(json.loads(sys.argv[1])))
{code}
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_worker(tree: dict[str, object], code: str) -> None:
    """Runs `code` with a `recorder` in a process that is then killed."""
    command = [sys.executable, "-c", _KILLED.format(code=code), json.dumps(tree)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()


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
