"""OpenAI's `/responses/compact`, by which a client has its conversation shortened.

The body is a Responses request's, but its last words are not the user's, and no tools are called. The
answer's `output` holds the conversation's new items, its `usage` the tokens.

https://platform.openai.com/docs/api-reference/responses/compact
"""

from __future__ import annotations

from msgspec.structs import replace

from ..model import Offer, RequestFacts, Tool
from . import responses
from .responses import (
    NAME,
    PING,
    blocking_fold,
    blocking_splice,
    error_body,
    error_event,
    fold,
    refusal,
    splice,
    upstream_body,
)

__all__ = [
    "NAME",
    "PING",
    "blocking_fold",
    "blocking_splice",
    "error_body",
    "error_event",
    "fold",
    "offer",
    "read",
    "refusal",
    "splice",
    "upstream_body",
]


def read(data: bytes) -> RequestFacts:
    """Reads the facts of a request's body. Raises InvalidBody."""
    return replace(responses.read(data), prompt="", kind="compaction")


def offer(data: bytes, facts: RequestFacts, tools: tuple[Tool, ...]) -> Offer:
    """Returns the body unchanged."""
    return Offer(data)
