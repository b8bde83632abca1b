"""The first tables: interceptions and what belongs to them."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def text(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Text, nullable=False, server_default="")


def count(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default="0")


def time(name: str, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def create_part(name: str, *columns: sa.Column[Any], key: Sequence[str] = ()) -> None:
    """A table whose rows belong to an interception."""
    op.create_table(
        name,
        sa.Column("interception_id", sa.String(36), nullable=False),
        *(sa.Column(part, sa.Integer, nullable=False, autoincrement=False) for part in key),
        *columns,
        time("created_at"),
        sa.PrimaryKeyConstraint("interception_id", *key),
        sa.ForeignKeyConstraint(["interception_id"], ["interceptions.id"], ondelete="CASCADE"),
    )


def upgrade() -> None:
    op.create_table(
        "interceptions",
        sa.Column("id", sa.String(36), primary_key=True),
        text("initiator_id"),
        sa.Column("metadata", sa.JSON, nullable=False),
        *map(text, ("provider", "provider_name", "model", "client", "client_session_id")),
        *map(text, ("user_agent", "credential_kind", "credential_hint", "correlating_tool_call_id")),
        sa.Column("thread_parent_id", sa.String(36)),
        sa.Column("thread_root_id", sa.String(36)),
        *map(text, ("agent_id", "parent_agent_id", "route")),
        sa.Column("streaming", sa.Boolean, nullable=False),
        sa.Column("status_code", sa.SmallInteger),
        time("started_at"),
        time("first_byte_at", nullable=True),
        time("ended_at", nullable=True),
        *map(text, ("error_type", "error_message")),
        sa.Column("wire_exact", sa.Boolean),
        *map(text, ("request_sha256", "response_sha256")),
        sa.Column("cost_micros", sa.BigInteger),
        sa.Column("worker_id", sa.String(36), nullable=False, server_default=""),
    )
    op.create_index("ix_interceptions_started_at", "interceptions", ["started_at", "id"])
    op.create_index("ix_interceptions_initiator", "interceptions", ["initiator_id", "started_at"])
    op.create_index("ix_interceptions_session", "interceptions", ["client_session_id"])
    op.create_index("ix_interceptions_thread_root", "interceptions", ["thread_root_id"])
    create_part(
        "token_usages",
        *map(text, ("provider_response_id", "model")),
        *map(count, ("input_tokens", "output_tokens")),
        *map(count, ("cache_read_input_tokens", "cache_write_input_tokens")),
        sa.Column("metadata", sa.JSON, nullable=False),
        key=["turn"],
    )
    create_part("user_prompts", text("provider_response_id"), text("prompt"))
    create_part(
        "tool_usages",
        *map(text, ("provider_response_id", "tool_call_id", "item_id", "tool", "input")),
        sa.Column("injected", sa.Boolean, nullable=False),
        *map(text, ("server_url", "invocation_error")),
        key=["turn", "position"],
    )
    op.create_index("ix_tool_usages_call", "tool_usages", ["tool_call_id"])
    create_part("model_thoughts", text("content"), text("source"), key=["turn", "position"])


def downgrade() -> None:
    for name in ("model_thoughts", "tool_usages", "user_prompts", "token_usages", "interceptions"):
        op.drop_table(name)
