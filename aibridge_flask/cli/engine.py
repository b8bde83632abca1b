"""The database of the server's configuration, for commands."""

from __future__ import annotations

from sqlalchemy import Engine

from .. import config
from ..records import database


def migrated_engine() -> Engine:
    """Connects to the server's database, and makes or upgrades its tables. Raises ConfigError."""
    engine = database.connect(config.load({}).database_url)
    database.migrate(engine)
    return engine
