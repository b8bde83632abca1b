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
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from ..errors import ConfigError
from ..model import new_id
from . import additions, sum_tables, tables, text_index
from .database_errors import is_busy
from .deadlines import DEADLINES

HEAD = "0003"  # of Alembic's migrations, which ended when changes became additive
VERSION = 11  # of the tables; `schema_info` holds it
_TIMEOUT_MS = 5000
_CONNECT_TIMEOUT = 3  # seconds
_MAX_WAL_PAGES = 4000  # a writer checkpoints a larger write-ahead log itself
_RETRY_SECONDS = 0.05
_PLAIN = re.compile(r"[\w.:-]*")
_LOCK_ATTEMPTS = {"sqlite": 1, "postgresql": 5}  # of a migration
_PAUSE_SECONDS = 0.5  # between these, for those that have queued up
_MIGRATION_LOCK_ID = 0x61694272  # of PostgreSQL's advisory lock: "aiBr"


# No start-up options and no server-side prepared statements, which PgBouncer refuses. The kernel notices a
# server that vanishes, `deadlines` one that is silent.
_POSTGRESQL_OPTIONS = {
    "connect_timeout": _CONNECT_TIMEOUT,
    "prepare_threshold": None,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 10_000,
}


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
        engine = sa.create_engine(
            url, poolclass=NullPool, hide_parameters=True, connect_args=_POSTGRESQL_OPTIONS
        )
        event.listen(engine, "connect", _attach_deadline, insert=True)
        return engine
    engine = sa.create_engine(url, poolclass=NullPool, hide_parameters=True)  # not in logs either

    def prepare(connection: Any, record: Any) -> None:
        DEADLINES.attach(connection)
        connection.isolation_level = None  # we send BEGIN ourselves
        connection.execute(f"PRAGMA busy_timeout={lock_timeout_ms}")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint={_MAX_WAL_PAGES}")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA secure_delete=ON")  # what was deleted is overwritten

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _attach_deadline(connection: Any, record: Any) -> None:
    DEADLINES.attach(connection)


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


class SchemaTooNew(ConfigError):
    """The tables are of a later version that this one cannot write to."""


def migrate(engine: Engine, repair: bool = False) -> None:
    """Migrates the database to this version's tables. Processes that start together wait for each other.

    New indexes of existing tables are not created here, since that may take minutes (`additions`). `repair`
    adds what is missing whatever version the tables claim to have. Raises ConfigError if the database
    cannot be used or somebody's lock on a table stays, SchemaTooNew if it needs a later version.
    """
    try:
        if repair or not _is_current(engine):
            _enable_wal(engine)
            _bring_up_patiently(engine, repair)
    except SQLAlchemyError as error:
        raise ConfigError(
            f"database_url: {_redacted_url(engine.url)} cannot be used: {type(error).__name__}"
        ) from None


def check_version(connection: Connection) -> bool:
    """Returns whether the tables are of this version, or of a later one that this version can write to.

    Raises SchemaTooNew.
    """
    found = sa.inspect(connection)
    if not found.has_table(tables.schema_info.name) or _alembic_version(connection) != HEAD:
        return False
    info = read_info(connection)
    if int(info.get("min_code", "0")) > VERSION:
        raise SchemaTooNew(
            f"database_url: the database needs version {info['min_code']} of the bridge's tables,"
            f" this one has {VERSION}"
        )
    return int(info.get("version", "0")) >= VERSION


def read_info(connection: Connection) -> dict[str, str]:
    """Returns the rows of `schema_info`: `database_id`, `version`, `min_code` and more."""
    rows = connection.execute(sa.select(tables.schema_info.c.name, tables.schema_info.c.value))
    return {str(name): str(value) for name, value in rows.all()}


def _is_current(engine: Engine) -> bool:
    with engine.connect() as connection:
        return check_version(connection)


def _bring_up_patiently(engine: Engine, repair: bool) -> None:
    """Tries again in a new transaction if a table is locked. Raises ConfigError if it stays so."""
    for left in reversed(range(_LOCK_ATTEMPTS[engine.dialect.name])):
        try:
            with _migration_lock(engine) as connection:
                return _bring_up(connection, repair)
        except OperationalError as error:
            if engine.dialect.name == "sqlite" or not is_busy(error):
                raise
        if left:
            sleep(_PAUSE_SECONDS)
    raise ConfigError("database_url: the tables cannot be changed: another session holds a lock on them")


def _bring_up(connection: Connection, repair: bool) -> None:
    tables.use_partial_indexes(connection.dialect.name)
    if not sa.inspect(connection).has_table(tables.interceptions.name):
        _create(connection)
    elif not repair and check_version(connection):
        return
    else:
        if _alembic_version(connection) != HEAD:
            upgrade(connection)
        additions.add_missing(connection)
    _write_info(connection)


def _write_info(connection: Connection) -> None:
    info = read_info(connection)
    values = {"database_id": info.get("database_id", new_id()), "version": str(VERSION)}
    for name, value in values.items():
        set_info(connection, name, value)


def set_info(connection: Connection, name: str, value: str) -> None:
    """Writes a row of `schema_info`."""
    update = sa.update(tables.schema_info).where(tables.schema_info.c.name == name)
    if not connection.execute(update.values(value=value)).rowcount:
        connection.execute(sa.insert(tables.schema_info).values(name=name, value=value))


def _redacted_url(url: URL) -> str:
    """Returns the URL without secrets, also if an unescaped @ or / in the password has shifted its parts."""
    host, name = url.host or "", url.database or ""
    port = f":{url.port}" if url.port else ""
    is_safe = url.get_backend_name() == "sqlite" or (_PLAIN.fullmatch(host) and _PLAIN.fullmatch(name))
    return f"{url.drivername}://{host}{port}/{name}" if is_safe else url.drivername


def _alembic_version(connection: Connection) -> str:
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
            # whoever uses a table queues behind a change of it that waits for a reader
            connection.execute(sa.text("SET LOCAL lock_timeout = '1s'"))
        yield connection


def _create(connection: Connection) -> None:
    """Creates all tables in an empty database, without Alembic, which takes 8 MB and a sixth of a second."""
    sum_tables.ALL_TABLES.create_all(connection)
    text_index.create(connection)
    for statement in text_index.missing_index(connection).values():
        connection.execute(sa.text(statement))
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
