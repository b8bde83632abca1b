"""Erases a person from the files of this host: the workers' logs, and what the database has rejected.

Places are overwritten as they are: workers append to the same files meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, TypeGuard

from msgspec import Struct

from . import frames, log_folder, log_reader
from .events import Event, Started, StoredObject
from .log_reader import Segment
from .rows import stored_name

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class ErasedFiles(Struct, frozen=True):
    """How many frames of logs and lines of rejected events were erased, and how many frames are not in the
    database yet, so that they had to stay.
    """

    frames: int = 0
    lines: int = 0
    unapplied: int = 0


class _Place(Struct, frozen=True):
    """A frame at the offsets [start, end) of a log."""

    start: int
    end: int
    time: float


class FileErasure:
    """Of one person. `ids` are interceptions of theirs; logs name more."""

    def __init__(
        self, folder: Path, identities: Collection[str], actor_id: str, ids: Collection[str]
    ) -> None:
        """`folder` and `identities` are as in `log_folder.logs_of`."""
        self._folder, self._identities = folder, identities
        self._actor_id, self._ids = stored_name(actor_id), set(ids)

    def run(self) -> ErasedFiles:
        """Erases what can be erased. Raises OSError."""
        erased = unapplied = 0
        for log in log_folder.logs_of(self._folder, self._identities):
            with contextlib.suppress(FileNotFoundError):
                done, left = self._erase_log(log)
                erased, unapplied = erased + done, unapplied + left
        return ErasedFiles(erased, self._erase_rejected(), unapplied)

    def _erase_log(self, log: Path) -> tuple[int, int]:
        """Returns how many frames were erased, and how many have to be applied before."""
        position = log_reader.read_position(log)
        theirs = [(segment, self._find(segment)) for segment in log_reader.segments(log)]
        erased = 0
        # the starts last: they say whose the rest is, if this is interrupted
        for segment, places in reversed(theirs):
            applied = [place for place in reversed(places) if place.end <= position]
            if applied:
                _overwrite(segment, applied)
            erased += len(applied)
        return erased, sum(len(places) for _, places in theirs) - erased

    def _find(self, segment: Segment) -> list[_Place]:
        places: list[_Place] = []
        with log_reader.open_regular(segment.path) as file:
            data = file.read()
        for frame in frames.decode(data, segment.start, is_end=False)[0]:
            self._ids |= {event.id for event in frame.events if self._is_their_start(event)}
            if any(map(self._is_theirs, frame.events)):
                places.append(_Place(frame.start, frame.end, frame.time))
        return places

    def _is_their_start(self, event: Event) -> TypeGuard[Started]:
        return isinstance(event, Started) and stored_name(event.initiator_id) == self._actor_id

    def _is_theirs(self, event: Event) -> bool:
        if isinstance(event, StoredObject):
            return stored_name(event.initiator_id) == self._actor_id
        id = getattr(event, "interception_id", "") or getattr(event, "id", "")
        return self._is_their_start(event) or id in self._ids

    def _erase_rejected(self) -> int:
        files = sorted((self._folder / log_folder.REJECTED).glob("*.jsonl"))
        return sum(map(self._erase_lines, files))

    def _erase_lines(self, path: Path) -> int:
        erased = 0
        with path.open("r+b") as file:
            start = 0
            for line in iter(file.readline, b""):
                end = file.tell()
                if self._names_them(line):
                    os.pwrite(file.fileno(), b" " * len(line.rstrip(b"\n")), start)
                    erased += 1
                start = end
        return erased

    def _names_them(self, line: bytes) -> bool:
        try:
            members: Any = json.loads(line)
        except ValueError:  # cut, or blank
            members = None
        found = set(_UUID.findall(line.decode("utf-8", "replace")))
        if isinstance(members, dict):
            found |= {str(members.get(name)) for name in ("id", "interception_id")}
            if members.get("initiator_id") == self._actor_id:
                return True
        return not self._ids.isdisjoint(found)


def _overwrite(segment: Segment, places: Iterable[_Place]) -> None:
    """Overwrites places of a segment, which keeps its mode and times: they say when it was applied."""
    before = segment.path.stat()
    segment.path.chmod(0o600)
    with segment.path.open("r+b") as file:
        for place in places:
            data = frames.blank(place.end - place.start, place.time)
            os.pwrite(file.fileno(), data, place.start - segment.start)
        os.fsync(file.fileno())
    os.utime(segment.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    segment.path.chmod(stat.S_IMODE(before.st_mode))
