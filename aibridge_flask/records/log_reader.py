"""Reads the frames of a log's files, which may be damaged, truncated or gone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import frames
from .frames import Frame
from .log import SUFFIX

_CHUNK_BYTES = 1 << 20
_POSITION_FILE = "applied"


@dataclass(frozen=True, slots=True)
class Segment:
    """A file of a log that holds the offsets [start, end)."""

    path: Path
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Frames, the offset after them, and the number of damaged places between them."""

    frames: tuple[Frame, ...]
    end: int
    damaged: int = 0


def segments(log: Path) -> list[Segment]:
    """Returns the segments of a log in their order. A missing folder has none."""
    found: list[Segment] = []
    with contextlib.suppress(OSError):
        for entry in os.scandir(log):
            start = entry.name.removesuffix(SUFFIX)
            if entry.name.endswith(SUFFIX) and start.isdecimal():
                with contextlib.suppress(FileNotFoundError):
                    found.append(Segment(Path(entry.path), int(start), int(start) + entry.stat().st_size))
    return sorted(found, key=lambda segment: segment.start)


def end_of(log: Path) -> int:
    """Returns the offset after the last byte of a log."""
    return max((segment.end for segment in segments(log)), default=0)


def read(log: Path, position: int, limit: int) -> Chunk:
    """Reads frames from `position` on, about a megabyte of them, up to the offset `limit`.

    The end of the returned chunk is `position` only if nothing follows it. Files that cannot be read are
    skipped and count as damage.
    """
    for segment in segments(log):
        end = min(segment.end, limit)
        if end <= position:
            continue
        start = max(position, segment.start)
        try:
            return _read_segment(segment.path, segment.start, start, end)
        except OSError:
            return Chunk((), end, damaged=1)
    return Chunk((), position)


def _read_segment(path: Path, segment_start: int, start: int, end: int) -> Chunk:
    with path.open("rb") as file:
        file.seek(start - segment_start)
        data = file.read(min(_CHUNK_BYTES, end - start))
        while (missing := frames.missing_bytes(data)) and start + len(data) < end:
            data += file.read(min(missing, end - start - len(data)))
    is_end = start + len(data) >= end
    decoded, consumed, damaged = frames.decode(data, start, is_end)
    if consumed == start and not is_end:  # an incomplete frame that claims more than there is
        consumed += 1
    return Chunk(tuple(decoded), consumed, damaged)


def scan(log: Path, position: int) -> Iterator[tuple[int, float]]:
    """Yields the number of events and the time of the frames from `position` on, without decoding them.

    Ends at a damaged frame.
    """
    for segment in segments(log):
        start = max(position, segment.start)
        with contextlib.suppress(OSError), segment.path.open("rb") as file:
            while start < segment.end:
                file.seek(start - segment.start)
                length, count, time = frames.read_header(file.read(frames.HEADER_BYTES))
                if not length:
                    return
                yield count, time
                start += length


def read_position(log: Path) -> int:
    """Returns the offset up to which a log was applied, as its applier has noted beside it; 0 if unknown."""
    try:
        return int.from_bytes((log / _POSITION_FILE).read_bytes()[:8], "little")
    except OSError:
        return 0


def note_position(log: Path, position: int) -> None:
    """Notes the offset up to which a log was applied, for other processes. The database is authoritative."""
    with contextlib.suppress(OSError):
        file = os.open(log / _POSITION_FILE, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.pwrite(file, position.to_bytes(8, "little"), 0)
        finally:
            os.close(file)
