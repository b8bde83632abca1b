"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html),
read incrementally: bytes in any chunking -> runs of whole events; an event -> name and data.

Upstreams write them in many ways: CRLF, bare comments, no blank after the colon, several
`data:` lines, a byte order mark, an event cut anywhere, an event of megabytes.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# A lone CR is a line's end too, but at the end of what has come a LF may still follow it.
_EOL = rb"(?:\r\n|\n|\r(?=[^\n]))"
_BLANK_LINE = re.compile(_EOL + _EOL)
_LINE = re.compile(rb"\r\n|\n|\r")
HELD_LIMIT = 32 << 20


class Event(NamedTuple):
    name: bytes
    data: bytes


class EventSplitter:
    """Gives out what has come in runs that end between two events, and holds back the rest."""

    def __init__(self, limit: int = HELD_LIMIT) -> None:
        self._parts: list[bytes] = []
        self._tail = b""
        self._size = 0
        self._limit = limit

    @property
    def at_event_boundary(self) -> bool:
        """All that came so far ends between two events."""
        return not self._parts

    def feed(self, piece: bytes) -> bytes:
        """The events that `piece` has made whole, as one run of bytes; often `piece` itself."""
        if not self._parts and piece.endswith(b"\n\n") and b"\r" not in piece:
            return piece
        self._parts.append(piece)
        self._size += len(piece)
        window = self._tail + piece
        end = _last_end(window)
        if end < 0 and self._size <= self._limit:
            self._tail = window[-3:]
            return b""
        return self._cut(len(window) - end if end >= 0 else 0)

    def flush(self) -> bytes:
        """What was held back, at the end of the stream."""
        return self._cut(0)

    def _cut(self, keep: int) -> bytes:
        data = b"".join(self._parts)
        cut = len(data) - keep
        rest = data[cut:]
        self._parts = [rest] if rest else []
        self._size, self._tail = len(rest), rest[-3:]
        return data[:cut]


def _last_end(window: bytes) -> int:
    if b"\r" not in window:
        return window.rfind(b"\n\n") + 2 if b"\n\n" in window else -1
    end = -1
    for match in _BLANK_LINE.finditer(window):
        end = match.end()
    return end


def split(run: bytes) -> list[bytes]:
    """The events of a run, each with its own ending."""
    if b"\r" not in run:
        events = [event + b"\n\n" for event in run.split(b"\n\n")]
        last = events.pop()[:-2]
    else:
        events, start = [], 0
        for match in _BLANK_LINE.finditer(run):
            events.append(run[start : match.end()])
            start = match.end()
        last = run[start:]
    return [*events, last] if last else events


def parse(event: bytes) -> Event:
    """An event's name and data; both are empty for a comment."""
    name, data = b"", []
    for line in _LINE.split(event.removeprefix(b"\xef\xbb\xbf")):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return Event(name, b"\n".join(data))


def encode(name: str, data: bytes) -> bytes:
    """An event as bytes; without a name only its data."""
    head = b"event: " + name.encode() + b"\n" if name else b""
    return head + b"data: " + data.replace(b"\n", b"\ndata: ") + b"\n\n"
