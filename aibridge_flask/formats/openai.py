"""What OpenAI's two APIs share: their errors and how they count tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import BridgeError
from ..model import Tool, Usage
from . import body, offering, tool_schema
from .tool_schema import SchemaRules

PING = b": keep-alive\n\n"
_RULES = SchemaRules(takes_references=True, needs_items=True)
_MAX_TOOLS = 128
_USE_NAMES = {"code_interpreter_calls": "code_execution_requests"}


def error_object(error: BridgeError) -> dict[str, Any]:
    """Returns one of the bridge's own errors as these APIs write it."""
    type = error.openai_type or error.type
    end = {"resets_at": error.resets_at} if error.resets_at else {}
    return {"message": error.message, "type": type, "param": None, "code": error.code, **end}


def error_body(error: BridgeError, request_id: str) -> bytes:
    return body.dumps({"error": error_object(error)})


def tool_parameters(tool: Tool) -> Mapping[str, Any]:
    """Returns a tool's schema in the shape that these APIs take."""
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

    The API counts cached tokens as part of the input; here they are subtracted from it. Some upstreams count
    reasoning only in the total, and some count cached tokens only there.
    """
    metadata: dict[str, int] = {}
    for word in (input_word, output_word):
        details = body.positive_counts(body.get_object(counts, f"{word}_tokens_details"))
        metadata.update({f"{word}_{name}": count for name, count in details.items()})
    metadata |= _uses(counts)
    cache_read = metadata.pop(f"{input_word}_cached", 0) or _cached_at_top(counts)
    cache_write = metadata.pop(f"{input_word}_cache_write", 0)
    cached, reasoning = cache_read + cache_write, metadata.get(f"{output_word}_reasoning", 0)
    input, output = (body.get_count(counts, f"{word}_tokens") for word in (input_word, output_word))
    only_in_total = max(0, body.get_count(counts, "total_tokens") - input - output) if input > 0 else 0
    is_beside_input = cached <= only_in_total and (cached > input or cached == only_in_total != reasoning)
    return Usage(
        input_tokens=input if is_beside_input else max(0, input - cached),
        output_tokens=output + only_in_total - (cached if is_beside_input else 0),
        cache_read_input_tokens=cache_read,
        cache_write_input_tokens=cache_write,
        metadata=body.limit_counts(metadata),
    )


def _uses(counts: Mapping[str, Any]) -> dict[str, int]:
    """Returns how often xAI has used its own tools: `web_search_calls` is `web_search_requests` here.

    https://docs.x.ai/developers/tools/tool-usage-details
    """
    told = body.positive_counts(body.get_object(counts, "server_side_tool_usage_details"))
    return {_USE_NAMES.get(name, name.replace("_calls", "_requests")): count for name, count in told.items()}


def _cached_at_top(counts: Mapping[str, Any]) -> int:
    """Returns the cached tokens where Moonshot and DeepSeek tell them."""
    return body.get_count(counts, "cached_tokens") or body.get_count(counts, "prompt_cache_hit_tokens")
