"""Anthropic Messages: a streamed answer's content blocks, as they are sent back to the API.

Strings are put together as they stand in the JSON, escapes and all: a thought's signature holds for it
byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .. import sse
from . import body
from .offering import NULL, with_elements

_EMPTY = b'""'
_STARTS = (b'"content_block_start"', b'"content_block_delta"')


@dataclass(slots=True)
class _StreamedBlock:
    """`input` are the pieces of a JSON text."""

    members: dict[str, bytes]
    input: list[str] = field(default_factory=list)

    def grow(self, name: str, raw: bytes) -> None:
        if name == "partial_json":
            self.input.append(body.to_text(body.loads(raw)))
        elif name == "citation":
            self.members["citations"] = with_elements(self.members.get("citations", NULL), after=raw)
        elif raw.startswith(b'"'):
            before = self.members.get(name, NULL)
            self.members[name] = (before if before.startswith(b'"') else _EMPTY)[:-1] + raw[1:]
        else:
            self.members[name] = raw

    def to_json(self) -> bytes:
        text = "".join(self.input).encode(errors="backslashreplace")  # two deltas may share a character
        if text:
            self.members["input"] = text if body.object_members(text) else b"{}"
        return body.join_members(self.members)


def blocks_of_stream(runs: Iterable[bytes]) -> list[bytes]:
    """The blocks of a stream of events, in the order of their indexes."""
    blocks: dict[int, _StreamedBlock] = {}
    for run in runs:
        for event in sse.split(run):
            if any(word in event for word in _STARTS):
                _take(blocks, body.object_members(sse.parse(event).data))
    return list(_worth(blocks[index].to_json() for index in sorted(blocks)))


def blocks_of_content(content: bytes) -> list[bytes]:
    """The blocks of a JSON answer's `content`."""
    return list(_worth(body.elements(content)))


def _take(blocks: dict[int, _StreamedBlock], event: dict[str, bytes]) -> None:
    index = body.index_of(event)
    if "content_block" in event:
        blocks[index] = _StreamedBlock(body.object_members(event["content_block"]))
    elif index in blocks and "delta" in event:
        for name, raw in body.object_members(event["delta"]).items():
            if name != "type":
                blocks[index].grow(name, raw)


def _worth(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The API takes no text that is empty."""
    for block in blocks:
        found = body.loads(block)
        if body.get_string(found, "type") != "text" or body.get_string(found, "text"):
            yield block
