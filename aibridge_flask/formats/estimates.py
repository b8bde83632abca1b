"""How many tokens of output a response holds that broke off before its usage: by the text in its events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import sse
from . import body

_BYTES_PER_TOKEN = 4
_TEXT_MEMBERS = frozenset(
    ("text", "thinking", "partial_json", "content", "reasoning", "reasoning_content", "arguments", "delta")
)
SAMPLE_BYTES = 1 << 12


def output_tokens(size: int, sample: bytes) -> int:
    """Estimates the output of a stream of `size` bytes, of which `sample` are some whole events.

    >>> event = b'data: {"delta":{"text":"12345678"}}\\n\\n'
    >>> output_tokens(10 * len(event), event), output_tokens(0, b"")
    (20, 0)
    """
    text = sum(_text_bytes(body.loads(event.data)) for event in sse.with_data(sse.split(sample)))
    return size * text // max(1, len(sample)) // _BYTES_PER_TOKEN


def input_tokens(size: int) -> int:
    """Estimates the input of a request body of `size` bytes."""
    return size // _BYTES_PER_TOKEN


def _text_bytes(value: Any) -> int:
    """Returns how much text a decoded event holds, wherever it stands."""
    if isinstance(value, list):
        return sum(map(_text_bytes, value))
    members = value.items() if isinstance(value, Mapping) else ()
    return sum(_member_bytes(name, member) for name, member in members)


def _member_bytes(name: str, member: Any) -> int:
    if not isinstance(member, str):
        return _text_bytes(member)
    return len(member.encode("utf-8", "replace")) if name in _TEXT_MEMBERS else 0
