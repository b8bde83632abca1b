"""Counts of a token usage, by the kinds that have prices of their own."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from ..model import EMPTY, Usage

_MAX_COUNT = 10**12  # no response has so many tokens: the count is wrong
_WRITTEN_5M, _WRITTEN_1H = "cache_ephemeral_5m_input", "cache_ephemeral_1h_input"
# Further kinds of a usage that are parts of another count: that count, and the kind that has the price.
_PARTS = {
    _WRITTEN_1H: ("cache_write", "cache_write_1h"),
    "prompt_audio": ("input", "input_audio"),
    "input_audio": ("input", "input_audio"),
    "prompt_image": ("input", "input_image"),
    "input_image": ("input", "input_image"),
    "completion_audio": ("output", "output_audio"),
    "output_audio": ("output", "output_audio"),
    "completion_image": ("output", "output_image"),
    "output_image": ("output", "output_image"),
    "completion_reasoning": ("output", "output_reasoning"),
    "output_reasoning": ("output", "output_reasoning"),
}
_USES = {
    "web_search_requests": "web_search",
    "file_search_requests": "file_search",
    "code_execution_requests": "code_execution",
    "document_search_requests": "document_search",
    "x_posts_fetched": "x_post",
    "x_users_fetched": "x_user",
}


class Quantities(Struct, frozen=True):
    """What is to be paid: tokens and uses of tools by kind. Each token is counted once.

    `input_tokens` are all of the request, cached ones too: thresholds of long context are about them.
    """

    tokens: Mapping[str, int] = EMPTY
    uses: Mapping[str, int] = EMPTY
    input_tokens: int = 0


def quantities_of(usage: Usage) -> Quantities:
    """Counts a usage. The result has no `tokens` at all if a count is absurd."""
    further = usage.metadata
    written = usage.cache_write_input_tokens
    if further:  # some upstreams tell the parts alone
        written = max(written, further.get(_WRITTEN_5M, 0) + further.get(_WRITTEN_1H, 0))
    input, read = usage.input_tokens, usage.cache_read_input_tokens
    tokens = {"input": input, "output": usage.output_tokens, "cache_read": read, "cache_write": written}
    uses = _split(tokens, further) if further else EMPTY
    if not all(0 <= count <= _MAX_COUNT for counts in (tokens, uses) for count in counts.values()):
        return Quantities()
    return Quantities(tokens, uses, input + read + written)


def _split(tokens: dict[str, int], further: Mapping[str, int]) -> dict[str, int]:
    """Moves parts from `tokens` to kinds of their own. Returns the uses of tools."""
    uses: dict[str, int] = {}
    for name, count in further.items():
        if name in _PARTS:
            whole, kind = _PARTS[name]
            part = min(count, tokens[whole])
            tokens[whole] -= part
            tokens[kind] = tokens.get(kind, 0) + part
        elif name in _USES:
            uses[_USES[name]] = count
    return uses
