"""Checks of this machine: Python, the database, the folder of the logs."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ...config import Settings
from ...errors import ConfigError
from ...model import Actor
from ...reading.periods import Period
from ...reading.usage import Question, every_amount
from ...records import additions, backlog, database, database_clock, log_folder
from ...records.database import SchemaTooNew
from ...records.database_errors import describe
from ...records.deadlines import DEADLINES
from ..money import printable
from .finding import FAIL, OK, WARN, Finding

_LITTLE, _TOO_LITTLE = 1 << 30, 100 << 20  # bytes that are free
_MAX_SKEW = timedelta(seconds=30)
_DAYS = 30
_MAX_NAMES = 5
_SECONDS = 10.0
_EVERYBODY = Actor("", admin=True)
_IN_MEMORY = ("tmpfs", "ramfs")


def check_python() -> Iterator[Finding]:
    """The interpreter, and what the server needs: gunicorn with gevent workers."""
    servers = f"gunicorn {version('gunicorn')} with gevent {version('gevent')}"
    yield Finding("python", OK, f"Python {platform.python_version()}, {servers}")


def check_database(settings: Settings) -> Iterator[Finding]:
    """Whether it answers, has this version's tables, and goes by the same clock."""
    engine = database.connect(settings.database_url)
    file = engine.url.database or ""
    if engine.dialect.name == "sqlite" and not Path(file).exists():
        yield Finding("database", OK, f"{file} is not there yet: the server makes it")
        return
    try:
        with DEADLINES.limit(_SECONDS):
            yield from _check_tables(engine)
        with DEADLINES.limit(_SECONDS):
            yield _check_clock(engine)
        with DEADLINES.limit(_SECONDS):
            yield from _check_prices(engine)
    except SchemaTooNew as error:
        yield Finding("database", FAIL, error.message, "Install the newer version of the bridge.")
    except SQLAlchemyError as error:
        advice = "Look at database_url, and at the database itself. Requests go on: records wait in the log."
        yield Finding("database", FAIL, f"it does not answer: {describe(error)}", advice)


def _check_tables(engine: Engine) -> Iterator[Finding]:
    with engine.connect() as connection:
        is_current = database.check_version(connection)
    missing = additions.missing(engine)
    if not is_current or missing:
        detail = "the tables are not of this version, or something of them is missing"
        yield Finding("database", WARN, detail, "The server's start mends it, or `aibridge db upgrade`.")
    else:
        yield Finding("database", OK, f"{engine.dialect.name}, tables of version {database.VERSION}")


def _check_clock(engine: Engine) -> Finding:
    """Periods of limits, and who is alive, go by the database's clock."""
    with engine.connect() as connection:
        difference = abs(datetime.now(UTC) - database_clock.read(connection))
    seconds = round(difference.total_seconds(), 1)
    if difference > _MAX_SKEW:
        detail = f"this machine's clock and the database's differ by {seconds} s: times in records are wrong"
        return Finding("clock", WARN, detail, "Let both follow NTP.")
    return Finding("clock", OK, f"it differs from the database's by {seconds} s")


def _check_prices(engine: Engine) -> Iterator[Finding]:
    """Models whose requests of the last 30 days have no price."""
    if not sa.inspect(engine).has_table("usage_hourly"):
        return
    since = datetime.now(UTC) - timedelta(days=_DAYS)
    question = Question(("model",), period=Period((since,)))
    found = every_amount(engine, _EVERYBODY, question)
    models = sorted(printable(row["model"]) for row in found if row["unpriced_requests"])
    if models:
        names = ", ".join(models[:_MAX_NAMES]) + (" and more" if len(models) > _MAX_NAMES else "")
        detail = f"models without a price, whose cost is counted nowhere: {names}"
        advice = "Give them [prices], or a newer prices_file; then `aibridge reprice --unpriced`."
        yield Finding("prices", WARN, detail, advice)
    else:
        yield Finding("prices", OK, f"every request of the last {_DAYS} days has a price")


def check_log_folder(settings: Settings) -> Iterator[Finding]:
    """Space, rights, whether it outlives a restart, and what waits in it."""
    engine = database.connect(settings.database_url)
    folder = log_folder.place(settings.spool_dir, engine.url)
    if not folder.exists():  # it is the server's to make, under its own user
        yield Finding("log folder", OK, f"{folder} is not there yet: the server makes it")
        return
    try:
        folder = log_folder.prepare(settings.spool_dir, engine.url)
        free, behind = shutil.disk_usage(folder).free, backlog.measure(folder)
    except (ConfigError, OSError) as error:
        detail = error.message if isinstance(error, ConfigError) else str(error.strerror)
        advice = "Set spool_dir to a folder that the server may write to, or run this as the server's user."
        yield Finding("log folder", FAIL, f"{detail}: no request can be recorded", advice)
        return
    waiting = f", {behind.events} records wait for the database" if behind.events else ""
    yield _look_at(folder, free, f"{folder}, {free >> 20} MiB free{waiting}")


def _look_at(folder: Path, free: int, detail: str) -> Finding:
    if free < _LITTLE:
        status = FAIL if free < _TOO_LITTLE else WARN
        detail = f"{detail}: when it is full, requests are refused"
        return Finding("log folder", status, detail, "Free some space.")
    if _file_system(folder) in _IN_MEMORY:
        detail = f"{detail}: it is in memory, and records in it do not outlive the machine"
        advice = "Set spool_dir to a folder on a disk or volume, or records.durability to `database`."
        return Finding("log folder", WARN, detail, advice)
    return Finding("log folder", OK, detail)


def _file_system(folder: Path) -> str:
    """Returns the type of the file system; empty where Linux does not tell."""
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return ""
    mounts = {line.split()[1]: line.split()[2] for line in lines}
    places = (os.fspath(place) for place in (folder, *folder.parents))
    return next((mounts[place] for place in places if place in mounts), "")
