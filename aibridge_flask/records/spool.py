"""Where records wait on disk while the database is away: one file a worker, one line an event."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from .events import (
    CredentialUsed,
    Ended,
    Event,
    GatewayTokenUsed,
    ModelThought,
    Prompt,
    PromptAnswered,
    Started,
    TokenUsage,
    ToolUsage,
)
from .losses import LossCounter
from .rows import clean_text

_log = logging.getLogger("aibridge.records")
# What a line of the spool calls its event. The names outlive renamed classes: lines may wait on disk.
_KINDS: dict[str, type[Event]] = {
    "Started": Started,
    "Prompt": Prompt,
    "Answered": PromptAnswered,
    "KeyUsed": CredentialUsed,
    "TokenUse": TokenUsage,
    "ToolUse": ToolUsage,
    "ModelThought": ModelThought,
    "Ended": Ended,
    "TokenUsed": GatewayTokenUsed,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_BATCH = 1000
SUFFIX = ".spool"
_PROBE = b"\n"

Write = Callable[[list[Event]], int]


class Spool:
    """Belongs to one thread. What `append` took survives the process and the machine."""

    def __init__(self, path: Path, losses: LossCounter) -> None:
        self._path, self._losses = path, losses
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
        self._append(_PROBE)

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
        """Hands everything to `write`, which gives how many events are bad, in order; what it
        raises leaves the rest for later."""
        with self._path.open("rb") as stream:
            stream.seek(self._done)
            for batch, unreadable, length in _batches(stream):
                self._losses.add(write(batch) + unreadable)
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


def spooled(folder: Path) -> int:
    """How many events stand in the spools of all workers that share a folder, dead ones too."""
    count = 0
    for path in folder.glob(f"*{SUFFIX}"):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
            count += sum(line != _PROBE for line in stream)
    return count


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _batches(lines: Iterable[bytes]) -> Iterator[tuple[list[Event], int, int]]:
    """Events, how many cannot be read, and the bytes that all take. A last line without its end was
    cut by a kill: nobody was told that it is written."""
    batch: list[Event] = []
    length = unreadable = 0
    for line in lines:
        length += len(line)
        try:
            batch += _events(line)
        except (msgspec.MsgspecError, KeyError):
            if line.endswith(b"\n"):
                unreadable += 1
                _log.error("a line of the spool cannot be read: %d bytes", len(line))
        if len(batch) >= _BATCH:
            yield batch, unreadable, length
            batch, unreadable, length = [], 0, 0
    if length:
        yield batch, unreadable, length


def _line(event: Event) -> bytes:
    kind = _NAMES[type(event)]
    try:
        return msgspec.json.encode([kind, event], enc_hook=dict) + b"\n"
    except UnicodeError:
        cleaned = _cleaned(msgspec.to_builtins(event, enc_hook=dict))
        return msgspec.json.encode([kind, cleaned]) + b"\n"


def _cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        return {clean_text(key): _cleaned(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(inner) for inner in value]
    return clean_text(value) if isinstance(value, str) else value


def _events(line: bytes) -> list[Event]:
    """One, or none. Raises MsgspecError, KeyError."""
    if line == _PROBE:
        return []
    kind, raw = msgspec.json.decode(line, type=tuple[str, msgspec.Raw])
    event: Any = msgspec.json.decode(raw, type=_KINDS[kind])
    return [event]
