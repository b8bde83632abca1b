"""Adds tools to a request's body: one value grows, and the bytes of all other values stay the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from ..errors import InvalidBody
from ..large_bytes import join
from ..model import EMPTY, Offer, Tool
from . import body

ToolEncoder = Callable[[Tool], Mapping[str, Any]]
NULL = b"null"


def editable_members(data: bytes) -> dict[str, bytes]:
    """Returns the body's members, or {} if tools cannot be added to it.

    A body that holds a name twice is not edited: JSON parsers disagree on what it means.
    """
    if body.is_dense(data):
        return {}
    try:
        members = body.split_members(data)
        return {} if body.has_duplicate_names(data, members) else members
    except (InvalidBody, RecursionError):
        return {}


def with_elements(array: bytes, before: bytes = b"", after: bytes = b"") -> bytes:
    """Returns a JSON array with more elements. `before` and `after` are elements joined by commas.

    `null` counts as an empty array.

    >>> with_elements(b'[ {"a": 1} ]', before=b"0"), with_elements(b"[]", after=b"1,2")
    (b'[0, {"a": 1} ]', b'[1,2]')
    >>> with_elements(b"null", b"0")
    b'[0]'
    """
    is_empty = array == NULL or not (array[1:100].strip(b" \t\r\n]") or array[1:-1].strip())
    inside = memoryview(array)[1 : 1 if is_empty else -1]
    parts = [piece for part in (before, inside, after) if part for piece in (b",", part)]
    return join((b"[", *parts[1:], b"]"))  # a large array is copied once


def without_clashes(tools: tuple[Tool, ...], array: bytes) -> tuple[Tool, ...]:
    """Returns the tools whose names are not among the client's own tools, the JSON `array`."""
    if b"bmcp_" not in array:
        return tools
    names = {name for tool in body.loads(array) or () for name in _tool_names(tool)}
    return tuple(tool for tool in tools if tool.id not in names)


def _tool_names(tool: Any) -> tuple[str, str]:
    return body.get_string(tool, "name"), body.get_string(body.get_object(tool, "function"), "name")


def is_array(raw: bytes) -> bool:
    """Whether `raw` is a JSON array, or `null`."""
    return raw == NULL or raw.startswith(b"[")


def follow_up_choice(array: bytes, auto: bytes) -> dict[str, bytes]:
    """Returns the members that replace a forced `tool_choice` in later requests.

    The model has then called a tool. If the client has no tools of its own (`array` is empty), a model that
    is still forced to call one would call the bridge's tools without end.
    """
    return {} if body.array_elements(array) else {"tool_choice": auto}


@lru_cache(maxsize=16)
def tools_json(encode: ToolEncoder, tools: tuple[Tool, ...]) -> bytes:
    """Returns the tools as JSON objects joined by commas, for `with_elements`."""
    return b",".join(body.dumps(encode(tool)) for tool in tools)


def make_offer(
    members: Mapping[str, bytes],
    changes: Mapping[str, bytes],
    tools: tuple[Tool, ...],
    follow_up_members: Mapping[str, bytes] = EMPTY,
) -> Offer:
    return Offer(body.join_members({**members, **changes}), tools, follow_up_members=follow_up_members)
