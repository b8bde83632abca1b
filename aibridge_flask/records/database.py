"""The database engine, and the migration of a database to this version's tables."""

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
_TIMEOUT_MS = 5000
_CONNECT_TIMEOUT = 3  # seconds
_MAX_WAL_PAGES = 4000  # a writer checkpoints a larger write-ahead log itself
_RETRY_SECONDS = 0.05
_PLAIN = re.compile(r"[\w.:-]*")
_MIGRATION_LOCK_ID = 0x61694272  # of PostgreSQL's advisory lock: "aiBr"


def connect(url: str, lock_timeout_ms: int = _TIMEOUT_MS) -> Engine:
    """Returns an engine without a pool: the writer keeps one connection, readers open their own.

    `lock_timeout_ms` bounds the wait for a lock. Raises ConfigError.
    """
    try:
        return _engine(sa.make_url(url), lock_timeout_ms)
    except (ValueError, SQLAlchemyError) as error:
        raise ConfigError(f"database_url: it cannot be read: {type(error).__name__}") from None


def _engine(url: URL, lock_timeout_ms: int) -> Engine:
    if url.get_backend_name() != "sqlite":
        limits = f"-c lock_timeout={lock_timeout_ms} -c statement_timeout={_TIMEOUT_MS}"
        options = {"connect_timeout": _CONNECT_TIMEOUT, "options": limits}
        return sa.create_engine(url, poolclass=NullPool, connect_args=options)
    engine = sa.create_engine(url, poolclass=NullPool)

    def prepare(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # we send BEGIN ourselves
        connection.execute(f"PRAGMA busy_timeout={lock_timeout_ms}")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint={_MAX_WAL_PAGES}")
        connection.execute("PRAGMA foreign_keys=ON")

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def migrate(engine: Engine) -> None:
    """Migrates the database to this version's tables. Processes that start together wait for each other.

    Raises ConfigError if the database cannot be used or has a later version.
    """
    try:
        if _version(engine) != HEAD:
            _enable_wal(engine)
            with _migration_lock(engine) as connection:
                version = _version_of(connection)
                if not version:
                    _create(connection)
                elif version != HEAD:
                    upgrade(connection)
    except SQLAlchemyError as error:
        raise ConfigError(
            f"database_url: {_redacted_url(engine.url)} cannot be used: {type(error).__name__}"
        ) from None


def _redacted_url(url: URL) -> str:
    """Returns the URL without secrets, also if an unescaped @ or / in the password has shifted its parts."""
    host, name = url.host or "", url.database or ""
    port = f":{url.port}" if url.port else ""
    is_safe = url.get_backend_name() == "sqlite" or (_PLAIN.fullmatch(host) and _PLAIN.fullmatch(name))
    return f"{url.drivername}://{host}{port}/{name}" if is_safe else url.drivername


def _version(engine: Engine) -> str:
    with engine.connect() as connection:
        return _version_of(connection)


def _version_of(connection: Connection) -> str:
    if not sa.inspect(connection).has_table("alembic_version"):
        return ""
    return str(connection.scalar(sa.text("SELECT version_num FROM alembic_version")) or "")


def _enable_wal(engine: Engine) -> None:
    """Enables write-ahead logging, so that readers do not block the writer. It is stored in the file."""
    if engine.dialect.name == "sqlite":
        raw = engine.raw_connection()
        with contextlib.closing(raw):
            end = monotonic() + _TIMEOUT_MS / 1000
            while not _try_to_enable_wal(raw.cursor()) and monotonic() < end:
                sleep(_RETRY_SECONDS)


def _try_to_enable_wal(cursor: Any) -> bool:
    """Returns false if another process does the same: SQLite does not wait for it."""
    try:
        cursor.execute("PRAGMA journal_mode=WAL")
    except sqlite3.OperationalError:
        return False
    return True


@contextlib.contextmanager
def _migration_lock(engine: Engine) -> Iterator[Connection]:
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK_ID)))
            connection.execute(sa.text("SET LOCAL statement_timeout = 0"))  # an index may take minutes
        yield connection


def _create(connection: Connection) -> None:
    """Creates all tables in an empty database, without Alembic, which takes 8 MB and a sixth of a second."""
    if sa.inspect(connection).has_table(tables.interceptions.name):
        upgrade(connection)
        return
    tables.use_partial_indexes(connection.dialect.name)
    tables.metadata.create_all(connection)
    column = sa.Column("version_num", sa.String(32), primary_key=True)
    version = sa.Table("alembic_version", sa.MetaData(), column)
    version.create(connection)
    connection.execute(version.insert().values(version_num=HEAD))


def upgrade(connection: Connection) -> None:
    """Migrates an existing database to this version with Alembic. Raises ConfigError."""
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
