"""Anthropic Messages: a response's content blocks, in the form in which they are sent back to the API.

Strings are joined as they are in the JSON, with their escapes: a thinking block's signature is valid only for
the unchanged bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .. import sse
from . import body
from .offering import NULL, with_elements

_EMPTY = b'""'
_BLOCK_EVENTS = (b'"content_block_start"', b'"content_block_delta"')


@dataclass(slots=True)
class _StreamedBlock:
    """`input` has the pieces of a JSON text."""

    members: dict[str, bytes]
    input: list[str] = field(default_factory=list)

    def add_delta(self, name: str, raw: bytes) -> None:
        if name == "partial_json":
            self.input.append(body.to_text(body.loads(raw)))
        elif name == "citation":
            self.members["citations"] = with_elements(self.members.get("citations", NULL), after=raw)
        elif raw.startswith(b'"'):
            current = self.members.get(name, NULL)
            self.members[name] = (current if current.startswith(b'"') else _EMPTY)[:-1] + raw[1:]
        else:
            self.members[name] = raw

    def to_json(self) -> bytes:
        # Two deltas may share a character: each has half of a surrogate pair.
        text = "".join(self.input).encode(errors="backslashreplace")
        if text:
            self.members["input"] = text if body.object_members(text) else b"{}"
        return body.join_members(self.members)


def blocks_of_stream(batches: Iterable[bytes]) -> list[bytes]:
    """Returns the blocks of a stream, ordered by index. Each batch is the bytes of whole events."""
    blocks: dict[int, _StreamedBlock] = {}
    for events in batches:
        for event in sse.split(events):
            if any(word in event for word in _BLOCK_EVENTS):
                _apply_event(blocks, body.object_members(sse.parse(event).data))
    return list(_without_empty_texts(blocks[index].to_json() for index in sorted(blocks)))


def blocks_of_content(content: bytes) -> list[bytes]:
    """Returns the blocks of a JSON response's `content`."""
    return list(_without_empty_texts(body.array_elements(content)))


def _apply_event(blocks: dict[int, _StreamedBlock], event: dict[str, bytes]) -> None:
    index = body.index_of(event)
    if "content_block" in event:
        blocks[index] = _StreamedBlock(body.object_members(event["content_block"]))
    elif index in blocks and "delta" in event:
        for name, raw in body.object_members(event["delta"]).items():
            if name != "type":
                blocks[index].add_delta(name, raw)


def _without_empty_texts(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The API refuses empty text blocks."""
    for raw in blocks:
        block = body.loads(raw)
        if body.get_string(block, "type") != "text" or body.get_string(block, "text"):
            yield raw
