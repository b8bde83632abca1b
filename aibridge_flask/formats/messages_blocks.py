"""Anthropic Messages: a streamed answer's content blocks, as they are sent back to the API.

Strings are put together as they stand in the JSON, escapes and all: a thought's signature holds for it
byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .. import sse
from ..errors import BadBody
from . import body
from .offer import NULL, grown

_EMPTY = b'""'
_STARTS = (b'"content_block_start"', b'"content_block_delta"')


@dataclass(slots=True)
class _Block:
    """`input` are the pieces of a JSON text."""

    members: dict[str, bytes]
    input: list[str] = field(default_factory=list)

    def grow(self, name: str, raw: bytes) -> None:
        if name == "partial_json":
            self.input.append(body.text_of(body.loads(raw)))
        elif name == "citation":
            self.members["citations"] = grown(self.members.get("citations", NULL), after=raw)
        elif raw.startswith(b'"'):
            before = self.members.get(name, NULL)
            self.members[name] = (before if before.startswith(b'"') else _EMPTY)[:-1] + raw[1:]
        else:
            self.members[name] = raw

    def whole(self) -> bytes:
        text = "".join(self.input).encode(errors="backslashreplace")  # two deltas may share a character
        if text:
            self.members["input"] = text if _members(text) else b"{}"
        return body.joined(self.members)


def _members(raw: bytes) -> dict[str, bytes]:
    """None of what is no object, by the letter: it would spoil the next request."""
    try:
        return body.members(raw)
    except BadBody:
        return {}


def streamed(runs: Iterable[bytes]) -> list[bytes]:
    """The blocks of a stream of events, in the order of their indexes."""
    blocks: dict[int, _Block] = {}
    for run in runs:
        for event in sse.split(run):
            if any(word in event for word in _STARTS):
                _take(blocks, _members(sse.parse(event).data))
    return list(_worth(blocks[index].whole() for index in sorted(blocks)))


def whole(content: bytes) -> list[bytes]:
    """The blocks of a JSON answer's `content`."""
    return list(_worth(body.elements(content)))


def _take(blocks: dict[int, _Block], event: dict[str, bytes]) -> None:
    index = body.number({"index": body.loads(event.get("index", NULL))}, "index")
    if "content_block" in event:
        blocks[index] = _Block(_members(event["content_block"]))
    elif index in blocks and "delta" in event:
        for name, raw in _members(event["delta"]).items():
            if name != "type":
                blocks[index].grow(name, raw)


def _worth(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The API takes no text that is empty."""
    for block in blocks:
        found = body.loads(block)
        if body.string(found, "type") != "text" or body.string(found, "text"):
            yield block
