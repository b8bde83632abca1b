"""Additive changes of the tables: what a database lacks of `tables` is added, and nothing else is changed.

Code of the version before goes on beside them, so that upgrades and rollbacks need no pause.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, Index
from sqlalchemy.schema import CreateColumn, CreateIndex

from . import coarser_sums, sum_tables, tables, text_index

_INDEX_LOCK_ID = 0x61694273  # of PostgreSQL's advisory lock: "aiBs"


def add_missing(connection: Connection) -> None:
    """Creates missing tables, and adds missing columns, which are nullable or have a constant default."""
    inspector = sa.inspect(connection)
    existing = set(inspector.get_table_names())
    for table in sum_tables.ALL_TABLES.sorted_tables:
        if table.name not in existing:
            table.create(connection)
            continue
        columns = {column["name"] for column in inspector.get_columns(table.name)}
        for column in table.columns:
            if column.name not in columns:
                definition = CreateColumn(column).compile(dialect=connection.dialect)
                connection.execute(sa.text(f"ALTER TABLE {table.name} ADD COLUMN {definition}"))
    for table in coarser_sums.COARSER:
        if table.name not in existing and sum_tables.usage_hourly.name in existing:
            coarser_sums.fill(connection, table)
    text_index.create(connection)


def missing(engine: Engine) -> list[str]:
    """Returns the names of tables, columns and indexes that the database lacks."""
    with engine.connect() as connection:
        inspector = sa.inspect(connection)
        existing = set(inspector.get_table_names())
        names = [table.name for table in sum_tables.ALL_TABLES.sorted_tables if table.name not in existing]
        for table in sum_tables.ALL_TABLES.sorted_tables:
            if table.name in existing:
                columns = {column["name"] for column in inspector.get_columns(table.name)}
                names += [
                    f"{table.name}.{column.name}" for column in table.columns if column.name not in columns
                ]
        return [*names, *text_index.missing_tables(connection), *_missing_indexes(connection)]


def create_indexes(engine: Engine) -> bool:
    """Creates missing indexes; returns false if another process does it at this time.

    PostgreSQL builds them beside the traffic, which may take minutes. Raises SQLAlchemyError.
    """
    with engine.connect() as connection:
        if not _missing_indexes(connection):
            return True
    if engine.dialect.name == "postgresql":
        return _create_concurrently(engine)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        _create_missing(connection, "")
    return True


def _create_concurrently(engine: Engine) -> bool:
    """Creates them while a transaction of another connection holds a lock.

    Statements outside a transaction may reach different sessions behind PgBouncer: a lock of a session would
    stay, and could not be released. The idle transaction has no snapshot, so the build does not wait for it.
    """
    with engine.connect() as holder, holder.begin():
        if not holder.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(_INDEX_LOCK_ID))):
            return False
        holder.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            _create_missing(connection, "CONCURRENTLY")
    return True


def _create_missing(connection: Connection, mode: str) -> None:
    tables.use_partial_indexes(connection.dialect.name)
    for name, statement in _missing_indexes(connection).items():
        connection.execute(sa.text(f"DROP INDEX IF EXISTS {name}"))  # what a failed build has left
        connection.execute(sa.text(statement.replace("INDEX", f"INDEX {mode}", 1)))


def _missing_indexes(connection: Connection) -> dict[str, str]:
    """Returns the statements that create them, by their names."""
    inspector = sa.inspect(connection)
    invalid = _invalid_indexes(connection)
    missing: list[Index] = []
    existing = set(inspector.get_table_names())
    for table in sum_tables.ALL_TABLES.sorted_tables:
        if table.name not in existing:
            continue
        names = {index["name"] for index in inspector.get_indexes(table.name)} - invalid
        missing += [index for index in table.indexes if index.name not in names]
    statements = {
        str(index.name): str(CreateIndex(index).compile(dialect=connection.dialect)) for index in missing
    }
    has_prompts = tables.user_prompts.name in existing
    return statements | (text_index.missing_index(connection) if has_prompts else {})


def _invalid_indexes(connection: Connection) -> set[str]:
    """A build of PostgreSQL that failed leaves an index that is not used.

    https://www.postgresql.org/docs/current/sql-createindex.html#SQL-CREATEINDEX-CONCURRENTLY
    """
    if connection.dialect.name != "postgresql":
        return set()
    query = "SELECT relname FROM pg_class JOIN pg_index ON indexrelid = pg_class.oid WHERE NOT indisvalid"
    return set(connection.scalars(sa.text(query)))
