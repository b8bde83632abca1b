"""Incremental reader of server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

Bytes in any chunking -> whole events; an event -> its name and data. Upstreams use every variant of the
syntax: CRLF, bare comments, no space after the colon, several `data:` lines, a byte order mark, events split
anywhere, events of megabytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .large_bytes import LARGE_BYTES, cut, join

# A lone CR ends a line too, but if it is the last byte received, an LF may still follow.
_EOL = rb"(?:\r\n|\n|\r(?=[^\n]))"
_BLANK_LINE = re.compile(_EOL + _EOL)
_LINE = re.compile(rb"\r\n|\n|\r")
BUFFER_LIMIT = 32 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_TAIL_BYTES = 1 << 12  # where the last boundary mostly is


class Event(NamedTuple):
    name: bytes
    data: bytes


class EventSplitter:
    """Splits a byte stream at event boundaries. Buffers an incomplete event, up to `limit` bytes."""

    def __init__(self, limit: int = BUFFER_LIMIT) -> None:
        self._parts: list[bytes] = []
        self._tail = b""
        self._size = 0
        self._limit = limit

    @property
    def at_event_boundary(self) -> bool:
        """Whether the bytes received so far end between two events."""
        return not self._parts

    @property
    def buffered(self) -> int:
        """The size of the incomplete event."""
        return self._size

    def feed(self, piece: bytes) -> bytes:
        """Returns the bytes of all events that `piece` completes; often `piece` itself."""
        if not self._parts and piece.endswith(b"\n\n") and b"\r" not in piece:
            return piece
        self._parts.append(piece)
        self._size += len(piece)
        window = self._tail + piece
        end = _last_end(window)
        if end < 0 and self._size <= self._limit:
            self._tail = window[-3:]
            return b""
        return self._take(len(window) - end if end >= 0 else 0)

    def flush(self) -> bytes:
        """Returns the buffered bytes, at the end of the stream."""
        return self._take(0)

    def _take(self, keep: int) -> bytes:
        data = join(self._parts)
        end = len(data) - keep
        rest = cut(data, end, len(data))
        self._parts = [rest] if rest else []
        self._size, self._tail = len(rest), rest[-3:]
        return cut(data, 0, end)


def _last_end(window: bytes) -> int:
    if b"\r" not in window:
        return window.rfind(b"\n\n") + 2 if b"\n\n" in window else -1
    end = _last_match_end(window, max(0, len(window) - _TAIL_BYTES))
    return end if end >= 0 else _last_match_end(window, 0)


def _last_match_end(window: bytes, start: int) -> int:
    end = -1
    for match in _BLANK_LINE.finditer(window, start):
        end = match.end()
    return end


def split(events_bytes: bytes) -> list[bytes]:
    """Splits the bytes of several events into single events, each with its blank line."""
    if len(events_bytes) > LARGE_BYTES:
        return list(_split_large(events_bytes))
    if b"\r" not in events_bytes:
        events = [event + b"\n\n" for event in events_bytes.split(b"\n\n")]
        last = events.pop()[:-2]
    else:
        events, start = [], 0
        for match in _BLANK_LINE.finditer(events_bytes):
            events.append(events_bytes[start : match.end()])
            start = match.end()
        last = events_bytes[start:]
    return [*events, last] if last else events


def _split_large(events_bytes: bytes) -> Iterator[bytes]:
    begin = 0
    for start, end, after in _line_places(events_bytes):
        if start == end < after:
            yield cut(events_bytes, begin, after)
            begin = after
    if begin < len(events_bytes):
        yield cut(events_bytes, begin, len(events_bytes))


def _line_places(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields where each line starts and ends, and where the next one starts. Copies nothing."""
    start, size = 0, len(data)
    while start < size:
        end = data.find(b"\n", start)
        after = end + 1 if end >= 0 else size
        end = end if end >= 0 else size
        carriage_return = data.find(b"\r", start, end)
        if carriage_return >= 0:
            is_pair = carriage_return + 1 == end
            end, after = carriage_return, after if is_pair else carriage_return + 1
        yield start, end, after
        start = after


def with_data(events: Iterable[bytes]) -> Iterator[Event]:
    """Yields the parsed events that have data. Thousands of comments or blank lines cost little."""
    for event in events:
        if b"data:" in event:
            parsed = parse(event)
            if parsed.data:
                yield parsed


def parse(event: bytes) -> Event:
    """Returns an event's name and data; both are empty for a comment."""
    name, data = b"", []
    for field, value in _fields(event):
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return Event(name, b"\n".join(data))


def _fields(event: bytes) -> Iterable[tuple[bytes, bytes]]:
    """Returns the names and values of all lines."""
    if len(event) > LARGE_BYTES:
        first = len(_BYTE_ORDER_MARK) if event.startswith(_BYTE_ORDER_MARK) else 0
        return (_field_and_value(event, max(first, start), end) for start, end, _ in _line_places(event))
    event = event.removeprefix(_BYTE_ORDER_MARK)
    lines = _LINE.split(event) if b"\r" in event else event.split(b"\n")
    return [_field_and_value(line, 0, len(line)) for line in lines]


def _field_and_value(data: bytes, start: int, end: int) -> tuple[bytes, bytes]:
    """Returns the two parts of a line. A large value is copied once."""
    colon = data.find(b":", start, end)
    if colon < 0:
        return data[start:end], b""
    begin = colon + (2 if data.startswith(b" ", colon + 1, end) else 1)
    return data[start:colon], cut(data, begin, end)


def field(event: bytes, name: bytes, default: bytes) -> bytes:
    """Returns the last value of a field other than `data`.

    >>> field(b"id: 7\\ndata: x\\n\\n", b"id", b""), field(b"data: x\\n\\n", b"id", b"6")
    (b'7', b'6')
    """
    for key, value in _fields(event):
        if key == name:
            default = value
    return default


def encode(name: str, data: bytes) -> bytes:
    """Returns an event as bytes; without a name it has `data:` lines only."""
    head = b"event: " + name.encode() + b"\n" if name else b""
    return head + b"data: " + data.replace(b"\n", b"\ndata: ") + b"\n\n"
