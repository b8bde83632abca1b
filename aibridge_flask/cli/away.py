"""What every command says of a database that does not answer."""

from __future__ import annotations

import click
from sqlalchemy.exc import SQLAlchemyError

from ..records.database_errors import describe


def database_away(error: SQLAlchemyError) -> click.ClickException:
    return click.ClickException(f"the database is away: {describe(error)}")
