"""The tables of sums, which the applier keeps with each change of an interception.

Keys are 63-bit digests of what a row stands for, so that a row is found by one number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Column, Index, String, Table, Text

from .tables import UtcTime, metadata, text_column

FIRST_BYTE_LIMITS = (50, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200)
DURATION_LIMITS = (250, 500, 1000, 2000, 4000, 8000, 16000, 32000, 64000, 128000, 256000)
"""Upper limits of the histograms' buckets, in milliseconds; one more bucket has what is above."""

FIRST_BYTE_BUCKETS = tuple(f"first_byte_{number}" for number in range(len(FIRST_BYTE_LIMITS) + 1))
DURATION_BUCKETS = tuple(f"duration_{number}" for number in range(len(DURATION_LIMITS) + 1))
TOKENS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens")
COST_PARTS = ("output_micros", "cache_read_micros", "cache_write_micros", "fees_micros")
"""Parts of `cost_micros`: the rest is the price of uncached input."""

AMOUNTS = (
    "requests",
    "errors",
    "unpriced_requests",
    *TOKENS,
    "cost_micros",
    *COST_PARTS,
    "cache_saved_micros",
)
USAGE_KEYS = (
    "hour",
    "initiator_id",
    "provider",
    "provider_name",
    "model",
    "client",
    "credential_kind",
    "error_type",
    "group_set",
)

_OF_PEOPLE = ("initiator_id", "group_set")
DAY_KEYS = ("day", *(name for name in USAGE_KEYS[1:] if name not in _OF_PEOPLE))
PEOPLE_KEYS = ("day", *_OF_PEOPLE)


def _counts(*names: str) -> list[Column[int]]:
    return [Column(name, BigInteger, nullable=False, server_default="0") for name in names]


def _key(name: str) -> Column[int]:
    return Column(name, BigInteger, primary_key=True, autoincrement=False)


def _usage_table(name: str, keys: Sequence[str], *indexes: Index) -> Table:
    start, *names = keys
    columns: list[Column[Any]] = [Column(start, UtcTime, nullable=False), *map(text_column, names)]
    counts = _counts(*AMOUNTS, *FIRST_BYTE_BUCKETS, *DURATION_BUCKETS)
    return Table(name, metadata, _key("id"), *columns, *counts, Index(f"ix_{name}_{start}", start), *indexes)


def _tools_table(name: str) -> Table:
    """`usage_id` is the id of a row of the table of usage."""
    columns: list[Column[Any]] = [
        Column("tool", Text, primary_key=True),
        Column("server_url", Text, primary_key=True),
        Column("injected", Boolean, primary_key=True),
    ]
    return Table(name, metadata, _key("usage_id"), *columns, *_counts("calls", "failures", "duration_ms"))


# One row a combination of the keys. Only interceptions that have ended are in it.
usage_hourly = _usage_table(
    "usage_hourly", USAGE_KEYS, Index("ix_usage_hourly_initiator", "initiator_id", "hour")
)
tools_hourly = _tools_table("tools_hourly")

# The same by the day, of all people together: few rows, for questions about months.
usage_daily = _usage_table("usage_daily", DAY_KEYS)
tools_daily = _tools_table("tools_daily")

# The same of people alone, and of nothing but the time.
people_daily = _usage_table(
    "people_daily", PEOPLE_KEYS, Index("ix_people_daily_initiator", "initiator_id", "day")
)
totals_hourly = _usage_table("totals_hourly", ("hour",))

# One row an actor's session, from its first interception on. `prompt_of` is the interception with the newest
# prompt of the user.
sessions = Table(
    "sessions",
    metadata,
    _key("key"),
    text_column("initiator_id"),
    text_column("id"),
    text_column("client"),
    Column("metadata", JSON, nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("last_active_at", UtcTime, nullable=False),
    Column("prompt_of", String(36), nullable=False, server_default=""),
    Column("prompt_at", UtcTime),
    *_counts("ended", "threads", *AMOUNTS),
    Index("ix_sessions_last_active", "last_active_at", "key"),
    Index("ix_sessions_initiator", "initiator_id", "last_active_at", "key"),
    Index("ix_sessions_id", "id"),
)

# Which rows of `usage_hourly` a session has ended interceptions in.
session_usage = Table(
    "session_usage",
    metadata,
    _key("session_key"),
    _key("usage_id"),
    *_counts("requests"),
    Index("ix_session_usage_usage", "usage_id", "session_key"),
)

# An actor's groups at the time of an interception, by the digest that stands there.
group_sets = Table(
    "group_sets",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", Text, primary_key=True),
)

# The number that was given last; its row makes transactions wait for each other before they write sums.
sequences = Table(
    "sequences",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

# Work that one worker of all hosts does at a time, and until when it has it. `state` is the work's own.
leases = Table(
    "leases",
    metadata,
    Column("name", String(32), primary_key=True),
    text_column("holder"),
    Column("expires_at", UtcTime, nullable=False),
    Column("state", JSON, nullable=False),
)

# Whose content was erased, as a digest: what a late log brings of them from before that time is not kept.
erasures = Table(
    "erasures",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("erased_at", UtcTime, nullable=False),
)

# Limits in effect, of files and of the API, as the API takes them. `sequences` has the number of the last
# change.
limits = Table(
    "limits",
    metadata,
    Column("name", Text, primary_key=True),
    Column("id", String(36), nullable=False, unique=True),
    text_column("source"),
    Column("definition", JSON, nullable=False),
    Column("created_at", UtcTime, nullable=False),
)

# What ended interceptions have spent of a limit: an account is what it counts together, for one subject; a
# bucket is a period's start or a step of a sliding one, in seconds since the epoch.
ledger = Table(
    "ledger",
    metadata,
    _key("account"),
    _key("bucket"),
    text_column("limit_name"),
    text_column("subject"),
    *_counts("spent"),
    Index("ix_ledger_limit", "limit_name", "bucket"),
)

# What interceptions under way are expected to spend, until they end.
holds = Table(
    "holds",
    metadata,
    Column("interception_id", String(36), primary_key=True),
    _key("account"),
    *_counts("bucket", "held"),
    text_column("limit_name"),
    text_column("subject"),
    text_column("worker_id"),
    Index("ix_holds_account", "account", "bucket", "held"),
    sqlite_with_rowid=False,  # one tree less to write before each request
)

# Who has used 75, 95 or 100 % of a limit: told once a period. `sent_at` is when the webhook has heard of it.
limit_notices = Table(
    "limit_notices",
    metadata,
    _key("account"),
    _key("start"),
    _key("percent"),
    text_column("limit_name"),
    text_column("subject"),
    Column("facts", JSON, nullable=False),
    Column("made_at", UtcTime, nullable=False),
    Column("sent_at", UtcTime),
)

# What administrators and users have changed or looked at.
audit = Table(
    "audit",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("at", UtcTime, nullable=False),
    text_column("actor_id"),
    text_column("action"),
    text_column("target"),
    Column("before", JSON, nullable=False),
    Column("after", JSON, nullable=False),
    Index("ix_audit_at", "at", "id"),
)

ALL_TABLES = metadata  # with those of `tables`
