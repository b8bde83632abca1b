"""The frames of a worker's own log that are not in the database yet."""

from __future__ import annotations

from collections.abc import Sequence

from . import log_reader
from .frames import Frame
from .log import RecordLog


class UnappliedFrames:
    """Takes frames from memory, or else from the files. `end`: where reading goes on if there is no frame."""

    def __init__(self, log: RecordLog) -> None:
        self._log = log
        self._read: Sequence[Frame] = ()
        self._start = self.end = self._damaged = 0
        self.has_more = False
        """Whether more frames wait than were taken last."""

    def take(self, position: int, count: int) -> Sequence[Frame]:
        """Returns up to `count` frames that follow a position. Raises OSError."""
        if frames := self._log.take(position, count):
            self._read, self.has_more = (), len(frames) == count
            return frames
        if not self._read or self._start != position:
            chunk = log_reader.read(self._log.path, position, self._log.end)
            self._read, self.end, self._damaged = chunk.frames, chunk.end, chunk.damaged
        frames, self._read = list(self._read[:count]), self._read[count:]
        self._start = frames[-1].end if frames else position
        self.has_more = bool(self._read)
        return frames

    def pop_damaged(self) -> int:
        """Returns how many places of what was read are damaged, once."""
        damaged, self._damaged = self._damaged, 0
        return damaged
