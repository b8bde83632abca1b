"""Indexes hold only what is looked for in them: most interceptions have no session of the client's, no
thread, and are not open. Each page of an index that need not change is one less to write."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_TABLE = "interceptions"
_NEW = {
    "ix_interceptions_session": ("client_session_id", "client_session_id <> ''"),
    "ix_interceptions_thread_root": ("thread_root_id", "thread_root_id IS NOT NULL"),
    "ix_interceptions_worker": ("worker_id", "ended_at IS NULL"),
}


def upgrade() -> None:
    for name, (column, where) in _NEW.items():
        op.drop_index(name, _TABLE)
        told = sa.text(where)
        op.create_index(name, _TABLE, [column], sqlite_where=told, postgresql_where=told)


def downgrade() -> None:
    for name in _NEW:
        op.drop_index(name, _TABLE)
    op.create_index("ix_interceptions_session", _TABLE, ["client_session_id"])
    op.create_index("ix_interceptions_thread_root", _TABLE, ["thread_root_id"])
    op.create_index("ix_interceptions_worker", _TABLE, ["worker_id", "ended_at"])
