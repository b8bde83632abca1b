"""The database's engine, and its way to this version's tables."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import sqlalchemy as sa
from sqlalchemy import URL, Connection, Engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from ..errors import ConfigError
from . import tables

HEAD = "0003"
_PATIENCE_MS = 5000
_CONNECT_S = 3
_LOG_PAGES = 4000  # of the write-ahead log, after which a writer brings it home, should nobody else have done
_AGAIN = 0.05
_PLAIN = re.compile(r"[\w.:-]*")
_LOCK = 0x61694272  # PostgreSQL's advisory lock on migrating: "aiBr"


def connect(url: str, patience_ms: int = _PATIENCE_MS) -> Engine:
    """An engine without a pool: the writer keeps one connection, readers open their own. After
    `patience_ms` a lock that somebody else holds is waited for no longer. Raises ConfigError."""
    try:
        return _engine(sa.make_url(url), patience_ms)
    except (ValueError, SQLAlchemyError) as error:
        raise ConfigError(f"database_url: it cannot be read: {type(error).__name__}") from None


def _engine(url: URL, patience_ms: int) -> Engine:
    if url.get_backend_name() != "sqlite":
        limits = f"-c lock_timeout={patience_ms} -c statement_timeout={_PATIENCE_MS}"
        options = {"connect_timeout": _CONNECT_S, "options": limits}
        return sa.create_engine(url, poolclass=NullPool, connect_args=options)
    engine = sa.create_engine(url, poolclass=NullPool)

    def prepare(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # BEGIN is ours
        connection.execute(f"PRAGMA busy_timeout={patience_ms}")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint={_LOG_PAGES}")
        connection.execute("PRAGMA foreign_keys=ON")

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def migrate(engine: Engine) -> None:
    """Brings the database to this version's tables, whoever else starts at the same time.

    Raises ConfigError where it cannot be reached or is of a later version.
    """
    try:
        if _version(engine) != HEAD:
            _set_journal(engine)
            with _locked(engine) as connection:
                found = _version_of(connection)
                if not found:
                    _create(connection)
                elif found != HEAD:
                    upgrade(connection)
    except SQLAlchemyError as error:
        raise ConfigError(
            f"database_url: {_shown(engine.url)} cannot be used: {type(error).__name__}"
        ) from None


def _shown(url: URL) -> str:
    """What of the URL is no secret, also where a password's @ or / moved its parts."""
    host, name = url.host or "", url.database or ""
    port = f":{url.port}" if url.port else ""
    sound = url.get_backend_name() == "sqlite" or (_PLAIN.fullmatch(host) and _PLAIN.fullmatch(name))
    return f"{url.drivername}://{host}{port}/{name}" if sound else url.drivername


def _version(engine: Engine) -> str:
    with engine.connect() as connection:
        return _version_of(connection)


def _version_of(connection: Connection) -> str:
    if not sa.inspect(connection).has_table("alembic_version"):
        return ""
    return str(connection.scalar(sa.text("SELECT version_num FROM alembic_version")) or "")


def _set_journal(engine: Engine) -> None:
    """Write-ahead logging lets readers and the writer work side by side; the file remembers."""
    if engine.dialect.name == "sqlite":
        raw = engine.raw_connection()
        with contextlib.closing(raw):
            end = monotonic() + _PATIENCE_MS / 1000
            while not _switched(raw.cursor()) and monotonic() < end:
                sleep(_AGAIN)


def _switched(cursor: Any) -> bool:
    """SQLite itself does not wait for who switches at the same time."""
    try:
        cursor.execute("PRAGMA journal_mode=WAL")
    except sqlite3.OperationalError:
        return False
    return True


@contextlib.contextmanager
def _locked(engine: Engine) -> Iterator[Connection]:
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            connection.execute(sa.text("SET LOCAL statement_timeout = 0"))  # an index may take minutes
        yield connection


def _create(connection: Connection) -> None:
    """A database that was never used gets the tables at once: Alembic takes 8 MB and a sixth of a
    second, and would come to the same."""
    if sa.inspect(connection).has_table(tables.interceptions.name):
        upgrade(connection)
        return
    tables.narrow(connection.dialect.name)
    tables.metadata.create_all(connection)
    column = sa.Column("version_num", sa.String(32), primary_key=True)
    version = sa.Table("alembic_version", sa.MetaData(), column)
    version.create(connection)
    connection.execute(version.insert().values(version_num=HEAD))


def upgrade(connection: Connection) -> None:
    """Alembic's way from whatever is there to this version; raises ConfigError."""
    from alembic import command  # slow to import, and needed once in a database's life
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise ConfigError(f"database_url: the database is of another version: {error}") from None
