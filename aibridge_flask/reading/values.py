"""Values as they stand in answers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

MAX_TEXT_BYTES = 4 << 20
_SHORTEST_TEXT = 256

encode = msgspec.json.Encoder().encode
"""Returns a value's JSON."""


def json_value(value: Any) -> Any:
    """Returns times as ISO 8601 text with microseconds and `Z`, other values as they are."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return value


def initiator(id: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": id, "username": metadata.get("username", id)}


def cut(text: str, size: int) -> str:
    """Returns as much of a text as fits into `size` bytes.

    >>> cut("héllo", 2), cut("hello", 9)
    ('h', 'hello')
    """
    if len(text) * 4 <= size:
        return text
    data = text.encode()
    return text if len(data) <= size else data[:size].decode("utf-8", "ignore")


def cut_texts(value: Any, size: int) -> Any:
    """Returns a value in which no text is longer than `size` bytes. Objects with a shortened one say
    `truncated`.

    >>> cut_texts([{"a": "12345", "b": 1}, {"a": "1"}], 3)
    [{'a': '123', 'b': 1, 'truncated': True}, {'a': '1'}]
    """
    if isinstance(value, list):
        return [cut_texts(item, size) for item in value]
    if not isinstance(value, dict):
        return value
    result = {
        name: cut(item, size) if isinstance(item, str) else cut_texts(item, size)
        for name, item in value.items()
    }
    if any(result[name] != item for name, item in value.items() if isinstance(item, str)):
        result["truncated"] = True
    return result


def encode_within(value: Any, size: int) -> bytes:
    """Returns a value's JSON, with texts that are shortened by half until it fits into `size` bytes."""
    data, longest = encode(value), MAX_TEXT_BYTES
    if len(data) <= MAX_TEXT_BYTES:  # so is each of its texts
        return data
    data = encode(cut_texts(value, longest))
    while len(data) > size and longest > _SHORTEST_TEXT:
        longest //= 2
        data = encode(cut_texts(value, longest))
    return data
