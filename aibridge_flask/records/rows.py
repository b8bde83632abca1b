"""Converts events to rows: text that every database accepts, counts that fit their columns."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec.structs import asdict

from .events import (
    CredentialUsed,
    Ended,
    Event,
    GatewayTokenUsed,
    ModelThought,
    Prompt,
    PromptAnswered,
    Started,
    StoredObject,
    TokenUsage,
    ToolUsage,
    text_size,
)
from .keys import group_set

_FIRST_YEAR = 1971  # earlier times stand for none
# PostgreSQL indexes values of up to a third of a page.
_MAX_INDEXED_LENGTH = 500
_INDEXED = ("initiator_id", "client_session_id", "correlating_tool_call_id")
_NUL = b"\\u0000"
_STEP = 1 << 20  # characters


def to_row(event: Event) -> dict[str, Any]:
    """Returns the row of an event. Rows for updates have the key in `which`."""
    row: dict[str, Any] = _CONVERTERS[type(event)](event)
    return row


def clean_text(text: str) -> str:
    """Returns text that every database accepts: without lone surrogates and NUL.

    >>> clean_text("a\\ud800b\\0")
    'a?b\\ufffd'
    """
    if text.isascii() and "\0" not in text:
        return text
    if len(text) <= _STEP:
        return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
    parts = [text[start : start + _STEP] for start in range(0, len(text), _STEP)]
    clean = [*map(clean_text, parts)]  # in steps, between which other threads run
    return text if clean == parts else "".join(clean)


def stored_name(actor_id: str) -> str:
    """Returns an actor's id as it stands in rows."""
    return clean_text(actor_id)[:_MAX_INDEXED_LENGTH]


def _clean_members(event: Event) -> dict[str, Any]:
    """Returns the members of an event. Its JSON shows fastest that there is nothing to clean, as in most."""
    row = asdict(event)
    try:
        if text_size(event) <= _STEP and _NUL not in msgspec.json.encode(event, enc_hook=dict):
            return row
    except UnicodeError:
        pass
    return {name: _clean(value) for name, value in row.items()}


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, Mapping):
        return {clean_text(key): _clean(inner) for key, inner in value.items()}
    return value


def _started_row(event: Started) -> dict[str, Any]:
    row = _clean_members(event)
    for name in _INDEXED:
        row[name] = row[name][:_MAX_INDEXED_LENGTH]
    row["group_set"] = group_set(_group_names(event))
    del row["groups"], row["holds"]
    return row


def hold_rows(event: Started, worker_id: str) -> list[dict[str, Any]]:
    """Returns the rows of what it holds of limits."""
    if not event.holds:
        return []
    of = {"interception_id": event.id, "worker_id": worker_id}
    return [{**asdict(each), "subject": clean_text(each.subject), **of} for each in event.holds]


def group_rows(event: Started) -> list[dict[str, str]]:
    """Returns the rows of the actor's groups."""
    names = _group_names(event)
    return [{"id": group_set(names), "name": name} for name in names]


def _group_names(event: Started) -> tuple[str, ...]:
    if not event.groups:
        return ()
    return tuple(sorted({clean_text(name)[:_MAX_INDEXED_LENGTH] for name in event.groups}))


def _prompt_row(event: Prompt) -> dict[str, Any]:
    return {
        "interception_id": event.interception_id,
        "prompt": clean_text(event.prompt),
        "created_at": event.created_at,
    }


def _token_usage_row(event: TokenUsage) -> dict[str, Any]:
    usage = event.usage
    return {
        "interception_id": event.interception_id,
        "turn": event.turn,
        "provider_response_id": clean_text(event.provider_response_id),
        "model": clean_text(event.model),
        "input_tokens": _to_bigint(usage.input_tokens),
        "output_tokens": _to_bigint(usage.output_tokens),
        "cache_read_input_tokens": _to_bigint(usage.cache_read_input_tokens),
        "cache_write_input_tokens": _to_bigint(usage.cache_write_input_tokens),
        "metadata": {clean_text(key): _to_bigint(count) for key, count in usage.metadata.items()},
        "created_at": event.created_at,
        "service_tier": clean_text(event.served.service_tier),
        "speed": clean_text(event.served.speed),
        "inference_geo": clean_text(event.served.inference_geo),
    }


def _tool_usage_row(event: ToolUsage) -> dict[str, Any]:
    row = _clean_members(event)
    return {**row, "tool_call_id": row["tool_call_id"][:_MAX_INDEXED_LENGTH]}


def _ended_row(event: Ended) -> dict[str, Any]:
    return {
        "which": event.id,
        "new_ended_at": event.ended_at,
        "new_status_code": event.status_code or None,
        "new_first_byte_at": _time_or_none(event.first_byte_at),
        "new_error_type": event.error_type,
        "new_error_message": clean_text(event.error_message),
        "new_wire_exact": event.wire_exact,
        "new_response_sha256": event.response_sha256,
        "new_attempts": event.attempts,
        "new_limit_id": event.limit_id,
        "new_overhead_ms": event.overhead_ms,
        "new_first_byte_ms": event.first_byte_ms,
        "new_duration_ms": event.duration_ms,
    }


def _time_or_none(moment: datetime) -> datetime | None:
    return moment if moment.year >= _FIRST_YEAR else None


def _to_bigint(count: int) -> int:
    """Clips a count, so that whatever an upstream sends fits the column."""
    return max(0, min(count, (1 << 53) - 1))


_CONVERTERS: Mapping[type, Any] = {
    Started: _started_row,
    Prompt: _prompt_row,
    PromptAnswered: lambda event: {
        "which": event.interception_id,
        "answer": clean_text(event.provider_response_id),
    },
    CredentialUsed: lambda event: {"which": event.interception_id, "hint": event.credential_hint},
    TokenUsage: _token_usage_row,
    ToolUsage: _tool_usage_row,
    ModelThought: _clean_members,
    Ended: _ended_row,
    GatewayTokenUsed: lambda event: {"which": event.token_id, "moment": event.last_used_at},
    StoredObject: _clean_members,
}
