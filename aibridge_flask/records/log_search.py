"""Finds events that are not in the database yet, in the logs of all workers of a host."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path

from . import frames, log_folder, log_reader
from .events import Event
from .log_reader import Segment

_MAX_SEGMENTS = 2  # of a log, the newest: more are unapplied only after a long outage
_STEP_BYTES = 1 << 20


def unapplied_events(folder: Path, identities: Collection[str], text: bytes) -> Iterator[Event]:
    """Yields the unapplied events of a database's logs (`log_folder.logs_of`) from the frames with `text`.

    What cannot be read is left out.
    """
    for log in log_folder.logs_of(folder, identities):
        with contextlib.suppress(OSError):
            position = log_reader.read_position(log)
            for segment in log_reader.segments(log)[-_MAX_SEGMENTS:]:
                if segment.end > position:
                    yield from _events(_read(segment, position), text)


def _read(segment: Segment, position: int) -> bytes:
    """Returns what follows a position, which is the start of a frame."""
    with log_reader.open_regular(segment.path) as file:
        file.seek(max(0, position - segment.start))
        return file.read()


def _events(data: bytes, text: bytes) -> Iterator[Event]:
    """Most data lacks the text, which is seen without taking frames apart."""
    if not _contains(data, text):
        return
    start = 0
    while length := frames.read_header(data[start : start + frames.HEADER_BYTES])[0]:
        frame = data[start : start + length]
        if text in frame:
            for decoded in frames.decode(frame, 0, is_end=True)[0]:
                yield from decoded.events
        start += length


def _contains(data: bytes, text: bytes) -> bool:
    """Searches in steps, between which other threads may run."""
    starts = range(0, len(data), _STEP_BYTES)
    return any(data.find(text, start, start + _STEP_BYTES + len(text) - 1) >= 0 for start in starts)
