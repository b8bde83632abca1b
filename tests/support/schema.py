"""The tables of a database, compared with this version's and changed."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from aibridge_flask.records import database as databases
from aibridge_flask.records import tables


def version(engine: sa.Engine) -> str:
    with engine.connect() as connection:
        return databases.read_info(connection)["version"]


def differences(engine: sa.Engine) -> list[Any]:
    with engine.connect() as connection:
        return list(compare_metadata(MigrationContext.configure(connection), tables.metadata))


def drop_an_index(engine: sa.Engine) -> None:
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(sa.text("DROP INDEX ix_tool_usages_call"))


def set_info(engine: sa.Engine, **values: str) -> None:
    with engine.begin() as connection:
        for name, value in values.items():
            connection.execute(sa.delete(tables.schema_info).where(tables.schema_info.c.name == name))
            connection.execute(sa.insert(tables.schema_info).values(name=name, value=value))
