"""Gateway tokens, and which workers are alive."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def time(name: str, nullable: bool = True) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def text(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Text, nullable=False, server_default="")


def upgrade() -> None:
    op.create_table(
        "gateway_tokens",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        text("hint"),
        text("user"),
        sa.Column("admin", sa.Boolean, nullable=False),
        time("created_at", nullable=False),
        time("expires_at"),
        time("revoked_at"),
        time("last_used_at"),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.String(36), primary_key=True),
        text("host"),
        time("seen_at", nullable=False),
    )
    op.create_index("ix_interceptions_worker", "interceptions", ["worker_id", "ended_at"])


def downgrade() -> None:
    op.drop_index("ix_interceptions_worker", "interceptions")
    op.drop_table("workers")
    op.drop_table("gateway_tokens")
