"""A worker's record log: a folder of segments to which events are appended by the request itself.

What was appended is recorded: the page cache keeps it over a kill of the process. The applier brings it to
the database afterwards. Offsets count the bytes of all segments; a segment's name is the offset of its
first byte.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections import deque
from collections.abc import Sequence
from errno import EEXIST
from functools import partial
from math import inf
from pathlib import Path

from ..waiting import run_if_large, unpatched
from . import frames
from .events import Event, text_size
from .frames import Frame

_log = logging.getLogger("aibridge.records")
_SEGMENT_BYTES = 16 << 20
_WINDOW_BYTES = 8 << 20
SUFFIX = ".log"
_NO_FILE = -1


class RecordLog:
    """The log of this worker. `end` is the offset after the last appended byte.

    The folder is locked as long as the process lives, so that other workers see when it has died.
    """

    def __init__(self, folder: Path, id: str) -> None:
        """Creates `folder/id` and locks it. Raises OSError."""
        self.id, self.path = id, folder / id
        self._folder = _create_locked(self.path)
        self.end = 0
        # a real lock: the applier's thread appends, too, when the disk has been full
        self._lock = unpatched("_thread", "allocate_lock")()
        self._segment, self._segment_start = _NO_FILE, 0
        self._window: deque[Frame] = deque()
        self._window_start = 0

    def append_fairly(self, events: Sequence[Event]) -> int:
        """As `append`, for a request. While it, or another one, writes much, other requests go on."""
        size = inf if self._lock.locked() else sum(map(text_size, events))
        return run_if_large(size, partial(self.append, events))

    def append(self, events: Sequence[Event]) -> int:
        """Appends events as one frame; returns the offset after it.

        Raises OSError; nothing was appended then.
        """
        now = time.time()
        data = frames.encode(events, now)
        with self._lock:
            start = self.end
            self._write(data)
            self.end = start + len(data)
            self._window.append(Frame(start, self.end, now, tuple(events)))
        if self.end - self._window_start > _WINDOW_BYTES:
            self._shrink_window()
        return self.end

    def restore(self) -> bool:
        """Makes the log's folder anew if somebody has removed it; returns whether that was so.

        What is appended afterwards is safe again. What was appended before is in memory, as far as the window
        reaches. If the folder cannot be made, nothing can be appended.
        """
        if self.path.exists():
            return False
        try:
            self._make_folder()
        except OSError as error:
            _log.error("the log's folder was removed and cannot be made anew: %s", error.strerror)
            return False
        _log.error("the log's folder was removed: %s is made anew", self.path)
        return True

    def _make_folder(self) -> None:
        with self._lock:
            self._close_segment()
            if self._folder != _NO_FILE:
                os.close(self._folder)
                self._folder = _NO_FILE
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder = _create_locked(self.path)

    def take(self, position: int, max_frames: int) -> list[Frame]:
        """Takes the next frames from memory, if they begin at `position`. For the applier's thread."""
        taken: list[Frame] = []
        with contextlib.suppress(IndexError):
            while self._window[0].start < position:
                self._window.popleft()
            while len(taken) < max_frames and self._window[0].start == position:
                frame = self._window.popleft()
                if frame.start != position:  # the other thread has just shrunk the window
                    break
                taken.append(frame)
                position = self._window_start = frame.end
        return taken

    def close(self) -> None:
        """Closes the files, and releases the lock with them."""
        with self._lock:
            self._close_segment()
            if self._folder != _NO_FILE:
                os.close(self._folder)
                self._folder = _NO_FILE

    def close_in_child(self) -> None:
        """Closes the files after a fork. Another thread of the parent may have held the lock."""
        self._lock = unpatched("_thread", "allocate_lock")()
        self.close()

    def _write(self, data: bytes) -> None:
        if self._segment == _NO_FILE or self.end - self._segment_start >= _SEGMENT_BYTES:
            self._open_segment()
        written = 0
        try:
            while written < len(data):
                written += os.write(self._segment, data[written:] if written else data)
        except OSError:
            self._undo()
            raise

    def _undo(self) -> None:
        """Removes a frame that was written in part. If that fails too, the next frame gets a new segment."""
        try:
            os.ftruncate(self._segment, self.end - self._segment_start)
        except OSError:
            size = os.fstat(self._segment).st_size
            self._close_segment()
            self.end = self._segment_start + size

    def _open_segment(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        segment = os.open(segment_name(self.end), flags, 0o600, dir_fd=self._folder)
        if os.fstat(segment).st_size:  # what a failed first write has left is empty
            os.close(segment)
            raise FileExistsError(EEXIST, "the segment is not empty")
        self._close_segment()
        self._segment, self._segment_start = segment, self.end

    def _close_segment(self) -> None:
        if self._segment != _NO_FILE:
            os.close(self._segment)
            self._segment = _NO_FILE

    def _shrink_window(self) -> None:
        """Drops the oldest frames from memory; the applier reads them from the files."""
        with contextlib.suppress(IndexError):
            while self.end - self._window_start > _WINDOW_BYTES:
                self._window_start = self._window.popleft().end


def _create_locked(path: Path) -> int:
    """Creates a folder and returns its locked descriptor. It gets its name once it is locked.

    Before, another worker would take it for a dead worker's.
    """
    unlocked = path.with_name(f".new-{path.name}")
    unlocked.mkdir(mode=0o700)
    descriptor = _NO_FILE
    try:
        descriptor = os.open(unlocked, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        unlocked.rename(path)
    except OSError:
        if descriptor != _NO_FILE:
            os.close(descriptor)
        unlocked.rmdir()
        raise
    return descriptor


def segment_name(start: int) -> str:
    """Returns the file name of the segment that begins at an offset."""
    return f"{start:020d}{SUFFIX}"
