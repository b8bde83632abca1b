"""What OpenAI's two APIs share: their errors and how they count tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import BridgeError
from ..model import Failure, Tool, Usage
from . import body, offering, tool_schema
from .tap import failure
from .tool_schema import SchemaRules

PING = b": keep-alive\n\n"
_RULES = SchemaRules(takes_references=True, needs_items=True)
_MAX_TOOLS = 128


def error_object(error: BridgeError) -> dict[str, Any]:
    """Returns one of the bridge's own errors as these APIs write it."""
    return {
        "message": error.message,
        "type": error.openai_type or error.type,
        "param": None,
        "code": error.code,
    }


def error_body(error: BridgeError, request_id: str) -> bytes:
    return body.dumps({"error": error_object(error)})


def failure_from(error: Mapping[str, Any]) -> Failure:
    """Returns the failure that the API reports inside a 200 response: by its type, code and message."""
    words = f"{body.get_string(error, 'type')} {body.get_string(error, 'code')}".strip()
    return failure(words, body.get_string(error, "message"))


def tool_parameters(tool: Tool) -> Mapping[str, Any]:
    return tool_schema.fit(tool, _RULES)[0]


def refusal(tool: Tool) -> str:
    """Returns why these APIs refuse a tool's schema, "" if they do not."""
    return tool_schema.fit(tool, _RULES)[1]


def new_tools(tools: tuple[Tool, ...], own: bytes) -> tuple[Tool, ...]:
    """Returns the tools for which there is room beside the client's `own`, a JSON array."""
    tools = offering.without_clashes(tools, own)
    if len(tools) + own.count(b"{") <= _MAX_TOOLS:  # there are no more elements than braces
        return tools
    return tools[: max(0, _MAX_TOOLS - len(body.array_elements(own)))]


def parse_usage(counts: Mapping[str, Any], input_word: str, output_word: str) -> Usage:
    """Converts the API's `usage`. `input_word` and `output_word` are the API's words for input and output.

    The API counts cached tokens as part of the input; here they are subtracted from it.
    """
    metadata: dict[str, int] = {}
    for word in (input_word, output_word):
        details = body.positive_counts(body.get_object(counts, f"{word}_tokens_details"))
        metadata.update({f"{word}_{name}": count for name, count in details.items()})
    cache_read = metadata.pop(f"{input_word}_cached", 0)
    cache_write = metadata.pop(f"{input_word}_cache_write", 0)
    return Usage(
        input_tokens=max(0, body.get_count(counts, f"{input_word}_tokens") - cache_read - cache_write),
        output_tokens=body.get_count(counts, f"{output_word}_tokens"),
        cache_read_input_tokens=cache_read,
        cache_write_input_tokens=cache_write,
        metadata=body.limit_counts(metadata),
    )
