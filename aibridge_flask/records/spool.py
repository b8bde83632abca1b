"""Where records wait on disk while the database is away: one file a worker, one line an event."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from .events import EVENTS, Event
from .rows import clean

_log = logging.getLogger("aibridge.records")
_KINDS = {kind.__name__: kind for kind in EVENTS}
_BATCH = 1000
SUFFIX = ".spool"

Write = Callable[[list[Event]], object]


class Spool:
    """Belongs to one thread. What `append` took survives the process and the machine."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int = -1
        self._size = path.stat().st_size if path.exists() else 0
        self._done = 0

    @property
    def empty(self) -> bool:
        return self._size == self._done

    def append(self, events: Iterable[Event]) -> None:
        """All of them or none; raises OSError, where the disk is full for one."""
        self._append(b"".join(_line(event) for event in events))

    def probe(self) -> None:
        """Writes an empty line; raises OSError where not even that can be."""
        self._append(b"\n")

    def _append(self, data: bytes) -> None:
        if self._file < 0:
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            _write_all(self._file, data)
            os.fdatasync(self._file)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise
        self._size += len(data)

    def replay(self, write: Write) -> None:
        """Hands everything to `write`, in order; what it raises leaves the rest for later."""
        with self._path.open("rb") as stream:
            stream.seek(self._done)
            for batch, length in _batches(stream):
                write(batch)
                self._done += length
        self._forget()

    def close(self) -> None:
        """Removes the file if nothing waits in it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self.empty:
            self._path.unlink(missing_ok=True)

    def _forget(self) -> None:
        if self._file >= 0:
            os.ftruncate(self._file, 0)
        else:
            self._path.unlink(missing_ok=True)
        self._size = self._done = 0


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _batches(lines: Iterable[bytes]) -> Iterator[tuple[list[Event], int]]:
    """Events and the bytes that they take. A last line without its end was cut by a kill: nobody
    was told that it is written."""
    batch: list[Event] = []
    length = 0
    for line in lines:
        length += len(line)
        batch.extend(_events(line))
        if len(batch) >= _BATCH:
            yield batch, length
            batch, length = [], 0
    if length:
        yield batch, length


def _line(event: Event) -> bytes:
    kind = type(event).__name__
    try:
        return msgspec.json.encode([kind, event], enc_hook=dict) + b"\n"
    except UnicodeError:
        cleaned = _cleaned(msgspec.to_builtins(event, enc_hook=dict))
        return msgspec.json.encode([kind, cleaned]) + b"\n"


def _cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        return {clean(key): _cleaned(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(inner) for inner in value]
    return clean(value) if isinstance(value, str) else value


def _events(line: bytes) -> Iterator[Event]:
    if line == b"\n":
        return
    try:
        kind, raw = msgspec.json.decode(line, type=tuple[str, msgspec.Raw])
        event: Any = msgspec.json.decode(raw, type=_KINDS[kind])
        yield event
    except (msgspec.MsgspecError, KeyError):
        if line.endswith(b"\n"):
            _log.error("a line of the spool cannot be read: %d bytes", len(line))
