"""What every command says of a database that does not answer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import click
from sqlalchemy.exc import SQLAlchemyError

from ..records.database_errors import describe


def database_away(error: SQLAlchemyError) -> click.ClickException:
    return click.ClickException(f"the database is away: {describe(error)}")


@contextlib.contextmanager
def away_is_one_line() -> Iterator[None]:
    """Ends the command with one line if the database fails inside."""
    try:
        yield
    except SQLAlchemyError as error:
        raise database_away(error) from None
