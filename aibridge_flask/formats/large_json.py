"""Decodes a large JSON value in steps, between which other threads run: one call would hold them up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

STEP_BYTES = 1 << 20
_MAX_DEPTH = 6  # of messages in requests; each level copies the value
_ESCAPE_BYTES = 6  # of one such as `\\u00e9`
_HIGH = (b"\\ud8", b"\\ud9", b"\\uda", b"\\udb")  # begin the escape of the first half of a pair


def loads(data: bytes, depth: int = _MAX_DEPTH) -> Any:
    """Returns what msgspec decodes. Raises what it raises. Below `depth` levels a value is decoded at once.

    >>> loads(b'{"a":["x", 1]}') == {"a": ["x", 1]}
    True
    """
    if len(data) <= STEP_BYTES or not depth:
        return msgspec.json.decode(data)
    data = data.strip()
    if data.startswith(b"{"):
        members = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        return {name: loads(bytes(raw), depth - 1) for name, raw in members.items()}
    if data.startswith(b"["):
        return [loads(bytes(raw), depth - 1) for raw in msgspec.json.decode(data, type=list[msgspec.Raw])]
    if data.startswith(b'"') and data.endswith(b'"') and len(data) > 1:
        return "".join(map(_decode_part, _parts(data[1:-1])))
    return msgspec.json.decode(data)


def _decode_part(part: bytes) -> str:
    return str(msgspec.json.decode(b'"' + part + b'"'))


def _parts(text: bytes) -> Iterator[bytes]:
    """Yields the parts of an encoded text; each is the text of some whole characters."""
    start = 0
    while len(text) - start > STEP_BYTES:
        end = _boundary(text, start, start + STEP_BYTES)
        yield text[start:end]
        start = end
    yield text[start:]


def _boundary(text: bytes, start: int, end: int) -> int:
    """Returns the last place up to `end` that is inside of no character, no escape and no surrogate pair."""
    while text[end] & 0xC0 == 0x80:
        end -= 1
    if _is_escape(text, start, end - 1):
        end -= 1
    escape = text.rfind(b"\\u", end - _ESCAPE_BYTES + 1, end)
    if escape >= 0 and _is_escape(text, start, escape):
        end = escape
    pair = end - _ESCAPE_BYTES
    is_high = text[pair : pair + len(_HIGH[0])].lower() in _HIGH
    return pair if is_high and _is_escape(text, start, pair) else end


def _is_escape(text: bytes, start: int, place: int) -> bool:
    """Whether an escape begins at a place: a backslash that is not escaped itself."""
    before = text[start : place + 1]
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 1
