"""The tables of a database, compared with this version's and changed."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from aibridge_flask.records import database as databases
from aibridge_flask.records import tables, text_index


def version(engine: sa.Engine) -> str:
    with engine.connect() as connection:
        return databases.read_info(connection)["version"]


def is_described(name: str | None, kind: str, parents: Any) -> bool:
    """Whether SQLAlchemy knows of it: of the text index it does not."""
    return not (kind == "table" and str(name).startswith("prompt_")) and name != text_index.NAME


def differences(engine: sa.Engine) -> list[Any]:
    """What differs from this version's tables, and the missing parts of the text index."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": is_described})
        missing = [*text_index.missing_tables(connection), *text_index.missing_index(connection)]
        return [*compare_metadata(context, tables.metadata), *missing]


def drop_an_index(engine: sa.Engine) -> None:
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(sa.text("DROP INDEX ix_tool_usages_call"))


def set_info(engine: sa.Engine, **values: str) -> None:
    with engine.begin() as connection:
        for name, value in values.items():
            connection.execute(sa.delete(tables.schema_info).where(tables.schema_info.c.name == name))
            connection.execute(sa.insert(tables.schema_info).values(name=name, value=value))
