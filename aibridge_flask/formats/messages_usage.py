"""Anthropic Messages: how a response's tokens are counted.

https://docs.anthropic.com/en/api/messages#response-usage
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import reduce
from itertools import islice
from typing import Any

from ..model import Served, Usage
from . import body

_USAGE_FIELDS = (
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
)
_BESIDE_THE_MESSAGE = ("compaction", "advisor_message")
_MAX_ITERATIONS = 100


def parse_usage(counts: Mapping[str, Any]) -> Usage:
    """Converts the API's `usage`. Its `input_tokens` do not include cached tokens.

    If the model was asked several times, the first one's input stands at the top: the iterations are summed.
    """
    iterations = [_parse_counts(each) for each in _iterations(counts) if each.get("type") == "message"]
    return _larger(_parse_counts(counts), reduce(Usage.plus, iterations, Usage()))


def inner_usages(counts: Mapping[str, Any]) -> Iterator[tuple[str, Usage]]:
    """Yields the tokens that the top of `usage` does not count, with the model that served: "" if it is the
    message's own. A declined attempt of a fallback costs nothing."""
    for iteration in _iterations(counts):
        if body.get_string(iteration, "type") in _BESIDE_THE_MESSAGE:
            yield body.get_identifier(iteration, "model"), _parse_counts(iteration)


def served(counts: Mapping[str, Any]) -> Served:
    """Returns what `usage` says beside the counts."""
    names = ("service_tier", "speed", "inference_geo")
    return Served(*(body.get_identifier(counts, name) for name in names))


def _iterations(counts: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    objects = (each for each in body.get_array(counts, "iterations") if isinstance(each, body.OBJECT))
    return islice(objects, _MAX_ITERATIONS)


def _parse_counts(counts: Mapping[str, Any]) -> Usage:
    metadata: dict[str, int] = {}
    for key, value in counts.items():
        if not isinstance(value, body.OBJECT):
            metadata.update(body.positive_counts({key: value}) if key not in _USAGE_FIELDS else {})
        elif key == "cache_creation":
            metadata.update({f"cache_{name}": count for name, count in body.positive_counts(value).items()})
        else:
            prefix = "" if key == "server_tool_use" else key.removesuffix("_tokens_details") + "_"
            metadata.update({prefix + name: count for name, count in body.positive_counts(value).items()})
    return Usage(
        input_tokens=body.get_count(counts, "input_tokens"),
        output_tokens=body.get_count(counts, "output_tokens"),
        cache_read_input_tokens=body.get_count(counts, "cache_read_input_tokens"),
        cache_write_input_tokens=body.get_count(counts, "cache_creation_input_tokens"),
        metadata=body.limit_counts(metadata),
    )


def _larger(one: Usage, other: Usage) -> Usage:
    """Returns the larger count of each kind."""
    metadata = {**other.metadata, **one.metadata}
    return Usage(
        max(one.input_tokens, other.input_tokens),
        max(one.output_tokens, other.output_tokens),
        max(one.cache_read_input_tokens, other.cache_read_input_tokens),
        max(one.cache_write_input_tokens, other.cache_write_input_tokens),
        {kind: max(count, other.metadata.get(kind, 0)) for kind, count in metadata.items()},
    )
