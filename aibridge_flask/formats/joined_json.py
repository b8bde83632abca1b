"""JSON values that arrive in pieces, as in the deltas of chat completions, joined to one.

Strings are joined as they are in the JSON, with their escapes: an emoji may be cut between its two halves.
"""

from __future__ import annotations

from typing import Any

from . import body
from .offering import NULL

# Strings that are repeated in each piece, not continued.
_REPEATED = frozenset(("type", "id", "format", "index", "role"))
_PARTS_OF_TEXT = frozenset(("type", "text", "thinking"))

Node = Any
"""A joined value: a bytearray (a string's content), a dict, a list, or bytes (any other value's JSON)."""


def join(old: Node, piece: bytes, name: str = "") -> Node:
    """Returns the value after a further piece of its JSON; `old` may be changed. It begins as `NULL`.

    `name` is that of the member that is joined.
    """
    if piece == NULL:
        return old
    if piece.startswith(b'"') and isinstance(old, list):  # a list of parts that goes on as a text
        return _join_elements(old, b'[{"type":"text","text":%b}]' % piece)
    if piece.startswith(b'"'):
        if not isinstance(old, bytearray) or name in _REPEATED:
            return bytearray(piece[1:-1])
        old += piece[1:-1]
        return old
    if piece.startswith(b"{"):
        members = old if isinstance(old, dict) else {}
        for key, raw in body.object_members(piece).items():
            members[key] = join(members.get(key, NULL), raw, key)
        return members
    return _join_elements(old, piece) if piece.startswith(b"[") else piece


def to_json(node: Node) -> bytes:
    """Returns the joined value."""
    if isinstance(node, bytearray):
        return b'"' + node + b'"'
    if isinstance(node, dict):
        return body.join_members({name: to_json(value) for name, value in node.items()})
    if isinstance(node, list):
        return b"[" + b",".join(map(to_json, node)) + b"]"
    return bytes(node)


def _join_elements(old: Node, piece: bytes) -> Node:
    elements: list[Node] = old if isinstance(old, list) else []
    if isinstance(old, bytearray) and old:  # a text that goes on as a list of parts
        elements.append({"type": bytearray(b"text"), "text": old})
    for raw in body.array_elements(piece):
        earlier = _continued(elements, body.object_members(raw))
        if earlier is None:
            elements.append(join(NULL, raw))
        else:
            join(earlier, raw)
    return elements


def _continued(elements: list[Node], members: dict[str, bytes]) -> Node:
    """Returns the element that a piece with these members continues: by its index, or the text before it."""
    index = members.get("index")
    if index is not None:
        same = (item for item in elements if isinstance(item, dict) and item.get("index") == index)
        return next(same, None)
    last = elements[-1] if elements else None
    if not isinstance(last, dict) or (members.keys() | last.keys()) - _PARTS_OF_TEXT:
        return None
    return last if members and to_json(last.get("type", NULL)) == members.get("type") else None
