"""Reads the frames of a log's files, which may be damaged, truncated or gone."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from . import frames
from .frames import Frame
from .log import SUFFIX

_CHUNK_BYTES = 1 << 20
_POSITION_FILE = "applied"
_NAME_DIGITS = 20
_MAX_OFFSET = 1 << 63
_APPLIED_MODE = 0o400


class NotRegular(OSError):
    """A folder, FIFO or device is in the place of a file."""


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
    """Returns the segments of a log in their order. A missing folder has none.

    Files whose names are no offsets are ignored. Raises OSError if the folder cannot be listed.
    """
    found: list[Segment] = []
    for entry in _files(log):
        start = _offset(entry.name)
        if start is not None:
            with contextlib.suppress(FileNotFoundError):
                found.append(Segment(Path(entry.path), start, start + entry.stat().st_size))
    return sorted(found, key=lambda segment: segment.start)


def is_empty(log: Path) -> bool:
    """Whether a log has no files, not even such that are no segments. Raises OSError."""
    return not _files(log)


def _files(log: Path) -> list[os.DirEntry[str]]:
    """Returns what has a segment's suffix. Raises OSError, but not for a folder that is missing."""
    try:
        with os.scandir(log) as entries:
            return [entry for entry in entries if entry.name.endswith(SUFFIX)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _offset(name: str) -> int | None:
    digits = name.removesuffix(SUFFIX)
    if len(digits) != _NAME_DIGITS or not (digits.isascii() and digits.isdigit()):
        return None
    return int(digits) if int(digits) < _MAX_OFFSET else None


def end_of(log: Path) -> int:
    """Returns the offset after the last byte of a log. For measurements: 0 if it cannot be listed."""
    with contextlib.suppress(OSError):
        return max((segment.end for segment in segments(log)), default=0)
    return 0


def read(log: Path, position: int, limit: int) -> Chunk:
    """Reads frames from `position` on, about a megabyte of them, up to the offset `limit`.

    The end of the returned chunk is `position` only if nothing follows it. Files that are gone, forbidden or
    not regular are skipped and count as damage. Raises OSError for what may pass, as a lack of descriptors.
    """
    for segment in segments(log):
        end = min(segment.end, limit)
        if end <= position:
            continue
        start = max(position, segment.start)
        try:
            chunk = _read_segment(segment.path, segment.start, start, end)
        except (FileNotFoundError, PermissionError, IsADirectoryError, NotRegular):
            return Chunk((), end, damaged=1)
        if chunk.end > position:  # else the file was shortened meanwhile
            return chunk
    return Chunk((), position)


def _read_segment(path: Path, segment_start: int, start: int, end: int) -> Chunk:
    with open_regular(path) as file:
        file.seek(start - segment_start)
        data = file.read(min(_CHUNK_BYTES, end - start))
        while (missing := frames.missing_bytes(data)) and start + len(data) < end:
            more = file.read(min(missing, end - start - len(data)))
            if not more:  # the file was shortened meanwhile
                end = start + len(data)
            data += more
    is_end = start + len(data) >= end
    decoded, consumed, damaged = frames.decode(data, start, is_end)
    if consumed == start and not is_end:  # an incomplete frame that claims more than there is
        consumed += 1
    return Chunk(tuple(decoded), consumed, damaged)


def open_regular(path: Path, flags: int = 0) -> BinaryIO:
    """Opens a regular file to read it, with more flags of `os.open`. Waits for nobody. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegular(errno.EINVAL, "it is not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def scan(log: Path, position: int) -> Iterator[tuple[int, float]]:
    """Yields the number of events and the time of the frames from `position` on, without decoding them.

    Ends at a damaged frame. For measurements: what cannot be read is left out.
    """
    with contextlib.suppress(OSError):
        for segment in segments(log):
            with contextlib.suppress(OSError), open_regular(segment.path) as file:
                start = max(position, segment.start)
                while start < segment.end:
                    file.seek(start - segment.start)
                    length, count, appended = frames.read_header(file.read(frames.HEADER_BYTES))
                    if not length:
                        return
                    yield count, appended
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


def applied_at(segment: Segment) -> float:
    """Returns when an applied segment was first asked for, in seconds since 1970. Raises OSError.

    The file keeps that as its time of modification, and is read-only from then on.
    """
    status = segment.path.stat()
    if not status.st_mode & stat.S_IWUSR:
        return status.st_mtime
    os.utime(segment.path)
    segment.path.chmod(_APPLIED_MODE)
    return time.time()
