"""Alembic's entry: `database.migrate` hands it a connection that holds the lock."""

from alembic import context

from aibridge_flask.records.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transaction_per_migration=False,
)
context.run_migrations()
