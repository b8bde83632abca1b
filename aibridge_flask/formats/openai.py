"""What OpenAI's two APIs share: their errors and the way they count tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import BridgeError
from ..model import Failure, Tool, Usage
from . import body
from .tap import failure

PING = b": keep-alive\n\n"


def error_of(error: BridgeError) -> dict[str, Any]:
    """An error of the bridge's own, as these APIs word it."""
    return {
        "message": error.message,
        "type": error.openai_type or error.type,
        "param": None,
        "code": error.code,
    }


def error_body(error: BridgeError, request_id: str) -> bytes:
    return body.dumps({"error": error_of(error)})


def failure_from(error: Mapping[str, Any]) -> Failure:
    """A failure that the API tells inside a 200: by its type, its code and its message."""
    words = f"{body.get_string(error, 'type')} {body.get_string(error, 'code')}".strip()
    return failure(words, body.get_string(error, "message"))


def parameters(tool: Tool) -> Mapping[str, Any]:
    """A tool's schema, whole. MCP lets an object go without `properties`, these APIs do not."""
    return {"type": "object", "properties": {}, **tool.input_schema}


def usage(told: Mapping[str, Any], taken: str, given: str) -> Usage:
    """The API's `usage`; `taken` and `given` are its words for input and output. Cached tokens
    are part of the input there, and come off it here."""
    further: dict[str, int] = {}
    for side in (taken, given):
        details = body.positive_counts(body.get_object(told, f"{side}_tokens_details"))
        further.update({f"{side}_{name}": count for name, count in details.items()})
    read = further.pop(f"{taken}_cached", 0)
    written = further.pop(f"{taken}_cache_write", 0)
    return Usage(
        input_tokens=max(0, body.get_count(told, f"{taken}_tokens") - read - written),
        output_tokens=body.get_count(told, f"{given}_tokens"),
        cache_read_input_tokens=read,
        cache_write_input_tokens=written,
        metadata=body.limit_counts(further),
    )
