"""Tools put into a request's body: one value grows, and no other value's bytes change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from ..errors import InvalidBody
from ..model import EMPTY, Offer, Tool
from . import body

Shape = Callable[[Tool], Mapping[str, Any]]
NULL = b"null"


def members(data: bytes) -> dict[str, bytes]:
    """The body's members, or nothing where tools cannot be put into it: a body that holds a name twice is
    read differently by everybody."""
    if body.is_dense(data):
        return {}
    try:
        found = body.members(data)
        return {} if body.has_duplicate_names(data, found) else found
    except (InvalidBody, RecursionError):
        return {}


def with_elements(array: bytes, before: bytes = b"", after: bytes = b"") -> bytes:
    """A JSON array with more elements, which are given as they stand between its brackets; `null` is an
    empty one.

    >>> grown(b'[ {"a": 1} ]', before=b"0"), grown(b"[]", after=b"1,2"), grown(b"null", b"0")
    (b'[0, {"a": 1} ]', b'[1,2]', b'[0]')
    """
    inside = b"" if array == NULL else array[1:-1]
    parts = (before, inside if inside.strip() else b"", after)
    return b"[" + b",".join(part for part in parts if part) + b"]"


def without_clashes(tools: tuple[Tool, ...], array: bytes) -> tuple[Tool, ...]:
    """Those that the client has no tool of the same name of."""
    if b"bmcp_" not in array:
        return tools
    names = {name for one in body.loads(array) or () for name in _names(one)}
    return tuple(tool for tool in tools if tool.id not in names)


def _names(tool: Any) -> tuple[str, str]:
    return body.get_string(tool, "name"), body.get_string(body.get_object(tool, "function"), "name")


def is_array(raw: bytes) -> bool:
    return raw == NULL or raw.startswith(b"[")


def follow_up_choice(array: bytes, auto: bytes) -> dict[str, bytes]:
    """What changes in later requests where the model must call a tool: it has, and if the client has none of
    its own it would call ours without end."""
    return {} if body.elements(array) else {"tool_choice": auto}


@lru_cache(maxsize=16)
def tools_json(shape: Shape, tools: tuple[Tool, ...]) -> bytes:
    """The tools as an API takes them, as they stand between an array's brackets."""
    return b",".join(body.dumps(shape(tool)) for tool in tools)


def make_offer(
    found: Mapping[str, bytes],
    changes: Mapping[str, bytes],
    tools: tuple[Tool, ...],
    later: Mapping[str, bytes] = EMPTY,
) -> Offer:
    return Offer(body.join_members({**found, **changes}), tools, follow_up_members=later)
