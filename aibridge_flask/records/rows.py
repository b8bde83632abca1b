"""Events as rows of their tables: text that every database takes, counts that fit."""

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
    TokenUsage,
    ToolUsage,
)

_EPOCH_YEAR = 1971
# PostgreSQL takes no more than a third of a page into an index.
_CLIP = 500
_INDEXED = ("initiator_id", "client_session_id", "correlating_tool_call_id")
_NUL = b"\\u0000"


def to_row(event: Event) -> dict[str, Any]:
    """The row; those that update name what they find by `which`."""
    found: dict[str, Any] = _ROWS[type(event)](event)
    return found


def clean_text(text: str) -> str:
    """Text that every database takes: no lone surrogates, no NUL.

    >>> clean("a\\ud800b\\0")
    'a?b\\ufffd'
    """
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def _cleaned(event: Event) -> dict[str, Any]:
    """The members of an event; most hold nothing to clean, which is told fastest by its JSON."""
    row = asdict(event)
    try:
        if _NUL not in msgspec.json.encode(event, enc_hook=dict):
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


def _started(event: Started) -> dict[str, Any]:
    row = _cleaned(event)
    for name in _INDEXED:
        row[name] = row[name][:_CLIP]
    return row


def _prompt(event: Prompt) -> dict[str, Any]:
    return {
        "interception_id": event.interception_id,
        "prompt": clean_text(event.prompt),
        "created_at": event.created_at,
    }


def _tokens(event: TokenUsage) -> dict[str, Any]:
    usage = event.usage
    return {
        "interception_id": event.interception_id,
        "turn": event.turn,
        "provider_response_id": clean_text(event.provider_response_id),
        "model": clean_text(event.model),
        "input_tokens": _bounded(usage.input_tokens),
        "output_tokens": _bounded(usage.output_tokens),
        "cache_read_input_tokens": _bounded(usage.cache_read_input_tokens),
        "cache_write_input_tokens": _bounded(usage.cache_write_input_tokens),
        "metadata": {clean_text(key): _bounded(count) for key, count in usage.metadata.items()},
        "created_at": event.created_at,
    }


def _tool(event: ToolUsage) -> dict[str, Any]:
    row = _cleaned(event)
    return {**row, "tool_call_id": row["tool_call_id"][:_CLIP]}


def _ended(event: Ended) -> dict[str, Any]:
    return {
        "which": event.id,
        "new_ended_at": event.ended_at,
        "new_status_code": event.status_code or None,
        "new_first_byte_at": _known(event.first_byte_at),
        "new_error_type": event.error_type,
        "new_error_message": clean_text(event.error_message),
        "new_wire_exact": event.wire_exact,
        "new_response_sha256": event.response_sha256,
    }


def _known(moment: datetime) -> datetime | None:
    return moment if moment.year >= _EPOCH_YEAR else None


def _bounded(count: int) -> int:
    """A count from an upstream that says anything still fits its column."""
    return max(0, min(count, (1 << 53) - 1))


_ROWS: Mapping[type, Any] = {
    Started: _started,
    Prompt: _prompt,
    PromptAnswered: lambda event: {
        "which": event.interception_id,
        "answer": clean_text(event.provider_response_id),
    },
    CredentialUsed: lambda event: {"which": event.interception_id, "hint": event.credential_hint},
    TokenUsage: _tokens,
    ToolUsage: _tool,
    ModelThought: _cleaned,
    Ended: _ended,
    GatewayTokenUsed: lambda event: {"which": event.token_id, "moment": event.last_used_at},
}
