"""Decodes a large JSON value in steps, between which other threads run: one call would hold them up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from ..large_bytes import STEP_BYTES

_MAX_DEPTH = 6  # of messages in requests; each level looks through the value
_ESCAPE_BYTES = 6  # of one such as `\\u00e9`
_HIGH = (b"\\ud8", b"\\ud9", b"\\uda", b"\\udb")  # begin the escape of the first half of a pair
_OBJECT, _ARRAY, _QUOTE = b'{["'


def loads(data: bytes) -> Any:
    """Returns what msgspec decodes. Raises what it raises.

    >>> loads(b'{"a":["x", 1]}') == {"a": ["x", 1]}
    True
    """
    return _loads(memoryview(data.strip()) if len(data) > STEP_BYTES else data, _MAX_DEPTH)


def _loads(data: bytes | memoryview, depth: int) -> Any:
    """Copies nothing large. Below `depth` levels a value is decoded at once."""
    if len(data) <= STEP_BYTES or not depth:
        return msgspec.json.decode(data)
    first = data[0]
    if first == _OBJECT:
        members = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        return {name: _loads(memoryview(raw), depth - 1) for name, raw in members.items()}
    if first == _ARRAY:
        elements = msgspec.json.decode(data, type=list[msgspec.Raw])
        return [_loads(memoryview(raw), depth - 1) for raw in elements]
    if first == data[-1] == _QUOTE:
        return "".join(map(decode_part, parts(memoryview(data)[1:-1], STEP_BYTES)))
    return msgspec.json.decode(data)


def decode_part(part: memoryview) -> str:
    """Decodes a part of a text. Half of a surrogate pair, which msgspec refuses, is kept."""
    text = b"".join((b'"', part, b'"'))
    try:
        return str(msgspec.json.decode(text))
    except msgspec.DecodeError as error:
        try:
            return str(json.loads(text))
        except ValueError:
            raise error from None


def parts(text: memoryview, size: int) -> Iterator[memoryview]:
    """Yields the parts of JSON, each of about `size` bytes; none ends within a character or an escape."""
    start = 0
    while len(text) - start > size:
        end = start + _boundary(bytes(text[start : start + size + 1]))
        yield text[start:end]
        start = end
    yield text[start:]


def _boundary(text: bytes) -> int:
    """Returns the last place before the last byte that is inside of no character, no escape and no surrogate
    pair."""
    end = len(text) - 1
    while text[end] & 0xC0 == 0x80:
        end -= 1
    if _is_escape(text, end - 1):
        end -= 1
    escape = text.rfind(b"\\u", end - _ESCAPE_BYTES + 1, end)
    if escape >= 0 and _is_escape(text, escape):
        end = escape
    pair = end - _ESCAPE_BYTES
    is_high = text[pair : pair + len(_HIGH[0])].lower() in _HIGH
    return pair if is_high and _is_escape(text, pair) else end


def _is_escape(text: bytes, place: int) -> bool:
    """Whether an escape begins at a place: a backslash that is not escaped itself."""
    before = text[: place + 1]
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 1
