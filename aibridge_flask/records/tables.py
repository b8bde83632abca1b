"""The tables, for SQLite and PostgreSQL. Alembic migrates existing databases (`migrations/`)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    TypeDecorator,
    text,
)

metadata = MetaData()
_WHERE = "where"


class UtcTime(TypeDecorator[datetime]):
    """A point in time in UTC; SQLite stores no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def text_column(name: str) -> Column[str]:
    return Column(name, Text, nullable=False, server_default="")


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default="0")


def _milliseconds(name: str) -> Column[float]:
    return Column(name, Double, nullable=False, server_default="0")


def _interception_id(**options: Any) -> Column[str]:
    key = ForeignKey("interceptions.id", ondelete="CASCADE")
    return Column("interception_id", String(36), key, primary_key=True, **options)


def _position(name: str) -> Column[int]:
    return Column(name, Integer, primary_key=True, autoincrement=False)


def _time(name: str, nullable: bool = False) -> Column[Any]:
    return Column(name, UtcTime, nullable=nullable)


def _index(name: str, where: str, *columns: str) -> Index:
    """A partial index, of the rows that are searched for."""
    return Index(name, *columns, info={_WHERE: where})


def use_partial_indexes(dialect: str) -> None:
    """Makes the indexes partial for one dialect: declared for all, they would import all dialects (2 MB)."""
    for index in interceptions.indexes:
        if _WHERE in index.info:
            index.dialect_kwargs[f"{dialect}_where"] = text(index.info[_WHERE])


interceptions = Table(
    "interceptions",
    metadata,
    Column("id", String(36), primary_key=True),
    text_column("initiator_id"),
    Column("metadata", JSON, nullable=False),
    text_column("provider"),
    text_column("provider_name"),
    text_column("model"),
    text_column("client"),
    text_column("client_session_id"),
    text_column("user_agent"),
    text_column("credential_kind"),
    text_column("credential_hint"),
    text_column("correlating_tool_call_id"),
    Column("thread_parent_id", String(36)),
    Column("thread_root_id", String(36)),
    text_column("agent_id"),
    text_column("parent_agent_id"),
    text_column("route"),
    Column("streaming", Boolean, nullable=False),
    Column("status_code", SmallInteger),
    _time("started_at"),
    _time("first_byte_at", nullable=True),
    _time("ended_at", nullable=True),
    text_column("error_type"),
    text_column("error_message"),
    Column("wire_exact", Boolean),
    text_column("request_sha256"),
    text_column("response_sha256"),
    Column("cost_micros", BigInteger),
    Column("worker_id", String(36), nullable=False, server_default=""),
    Column("kind", Text, nullable=False, server_default="main"),
    Index("ix_interceptions_started_at", "started_at", "id"),
    Index("ix_interceptions_initiator", "initiator_id", "started_at"),
    Column("contributed", JSON),
    text_column("cost_status"),
    text_column("price_source"),
    text_column("price_version"),
    text_column("profile"),
    text_column("token_id"),
    text_column("limit_id"),
    text_column("group_set"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    _milliseconds("overhead_ms"),
    _milliseconds("first_byte_ms"),
    _milliseconds("duration_ms"),
    Column("session_key", BigInteger),
    Column("usage_id", BigInteger),
    Column("seq", BigInteger),
    _count("estimated_input"),
    Index("ix_interceptions_session_key", "session_key", "started_at", "id"),
    Index("ix_interceptions_seq", "seq", unique=True),
    _index("ix_interceptions_open_session", "ended_at IS NULL", "session_key"),
    _index("ix_interceptions_subagents", "agent_id <> ''", "session_key", "agent_id"),
    _index("ix_interceptions_not_summed", "contributed IS NULL", "started_at"),
    _index("ix_interceptions_correlating", "correlating_tool_call_id <> ''", "correlating_tool_call_id"),
    _index("ix_interceptions_session", "client_session_id <> ''", "client_session_id"),
    _index("ix_interceptions_thread_root", "thread_root_id IS NOT NULL", "thread_root_id"),
    _index("ix_interceptions_worker", "ended_at IS NULL", "worker_id"),
    _index("ix_interceptions_kind", "kind <> 'main'", "kind", "started_at", "id"),
    Index("ix_interceptions_cost", "cost_micros"),
)

token_usages = Table(
    "token_usages",
    metadata,
    _interception_id(),
    _position("turn"),
    text_column("provider_response_id"),
    text_column("model"),
    _count("input_tokens"),
    _count("output_tokens"),
    _count("cache_read_input_tokens"),
    _count("cache_write_input_tokens"),
    Column("metadata", JSON, nullable=False),
    _time("created_at"),
    text_column("service_tier"),
    text_column("speed"),
    text_column("inference_geo"),
    Column("cost_micros", BigInteger),
    _count("output_micros"),
    _count("cache_read_micros"),
    _count("cache_write_micros"),
    _count("fees_micros"),
    _count("cache_saved_micros"),
)

user_prompts = Table(
    "user_prompts",
    metadata,
    _interception_id(),
    text_column("provider_response_id"),
    text_column("prompt"),
    _time("created_at"),
)

tool_usages = Table(
    "tool_usages",
    metadata,
    _interception_id(),
    _position("turn"),
    _position("position"),
    text_column("provider_response_id"),
    text_column("tool_call_id"),
    text_column("item_id"),
    text_column("tool"),
    text_column("input"),
    Column("injected", Boolean, nullable=False),
    text_column("server_url"),
    text_column("invocation_error"),
    _time("created_at"),
    _count("duration_ms"),
    Index("ix_tool_usages_call", "tool_call_id"),
    Index("ix_tool_usages_tool", "tool", "interception_id"),
)

model_thoughts = Table(
    "model_thoughts",
    metadata,
    _interception_id(),
    _position("turn"),
    _position("position"),
    text_column("content"),
    text_column("source"),
    _time("created_at"),
)

gateway_tokens = Table(
    "gateway_tokens",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),
    text_column("hint"),
    text_column("user"),
    Column("admin", Boolean, nullable=False),
    _time("created_at"),
    _time("expires_at", nullable=True),
    _time("revoked_at", nullable=True),
    _time("last_used_at", nullable=True),
    Column("groups", JSON),
)

stored_objects = Table(
    "stored_objects",
    metadata,
    Column("id", Text, primary_key=True),
    Column("provider_name", Text, primary_key=True),
    text_column("initiator_id"),
    _time("created_at"),
)

# Logins of the dashboard that were ended before their time.
ended_logins = Table(
    "ended_logins",
    metadata,
    Column("id", String(36), primary_key=True),
    _time("ended_at"),
)

workers = Table(
    "workers",
    metadata,
    Column("id", String(36), primary_key=True),
    text_column("host"),
    _time("seen_at"),
)

logs = Table(
    "logs",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("position", BigInteger, nullable=False),
)

schema_info = Table(
    "schema_info",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", Text, nullable=False),
)

# What each worker serves now, as JSON: written while somebody watches.
live_lists = Table(
    "live_lists",
    metadata,
    Column("worker_id", String(36), primary_key=True),
    _time("seen_at"),
    text_column("interceptions"),
)

# Interceptions that are to end, and the sessions that are refused until then.
live_stops = Table(
    "live_stops",
    metadata,
    Column("id", String(36), primary_key=True),
    text_column("initiator_id"),
    text_column("session_id"),
    text_column("model"),
    _time("made_at"),
    _time("until"),
)

# Until when somebody watches.
live_views = Table("live_views", metadata, Column("name", String(32), primary_key=True), _time("until"))
