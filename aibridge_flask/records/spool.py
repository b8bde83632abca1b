"""The spool: events that wait on disk while the database is away. One file per worker, one line per event."""

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
_BATCH_SIZE = 1000
SUFFIX = ".spool"
_PROBE = b"\n"

Write = Callable[[list[Event]], int]


class Spool:
    """Used by one thread. Appended events survive a crash of the process and of the machine."""

    def __init__(self, path: Path, losses: LossCounter) -> None:
        self._path, self._losses = path, losses
        self._file: int = -1
        self._size = path.stat().st_size if path.exists() else 0
        self._replayed = 0

    @property
    def empty(self) -> bool:
        return self._size == self._replayed

    def append(self, events: Iterable[Event]) -> None:
        """Appends all events or none. Raises OSError, for instance on a full disk."""
        self._append(b"".join(_encode_line(event) for event in events))

    def probe(self) -> None:
        """Appends an empty line. Raises OSError if the file cannot be written."""
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
        """Passes all events to `write` in order; `write` returns how many are invalid, or raises."""
        with self._path.open("rb") as stream:
            stream.seek(self._replayed)
            for batch, unreadable, length in _batches(stream):
                self._losses.add(write(batch) + unreadable)
                self._replayed += length
        self._clear()

    def close(self) -> None:
        """Closes the file, and removes it if it is empty."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self.empty:
            self._path.unlink(missing_ok=True)

    def _clear(self) -> None:
        if self._file >= 0:
            os.ftruncate(self._file, 0)
        else:
            self._path.unlink(missing_ok=True)
        self._size = self._replayed = 0


def count_spooled(folder: Path) -> int:
    """Counts the events in the spools of all workers, living or dead, that share a folder."""
    count = 0
    for path in folder.glob(f"*{SUFFIX}"):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
            count += sum(line != _PROBE for line in stream)
    return count


def _write_all(file: int, data: bytes) -> None:
    remaining = memoryview(data)
    while remaining:
        remaining = remaining[os.write(file, remaining) :]


def _batches(lines: Iterable[bytes]) -> Iterator[tuple[list[Event], int, int]]:
    """Yields events, the number of unreadable lines, and the size of both in bytes.

    A last line without its end was cut by a kill; nobody was told that it was written.
    """
    batch: list[Event] = []
    length = unreadable = 0
    for line in lines:
        length += len(line)
        try:
            batch += _decode_line(line)
        except (msgspec.MsgspecError, KeyError):
            if line.endswith(b"\n"):
                unreadable += 1
                _log.error("a line of the spool cannot be read: %d bytes", len(line))
        if len(batch) >= _BATCH_SIZE:
            yield batch, unreadable, length
            batch, unreadable, length = [], 0, 0
    if length:
        yield batch, unreadable, length


def _encode_line(event: Event) -> bytes:
    kind = _NAMES[type(event)]
    try:
        return msgspec.json.encode([kind, event], enc_hook=dict) + b"\n"
    except UnicodeError:
        cleaned = _clean(msgspec.to_builtins(event, enc_hook=dict))
        return msgspec.json.encode([kind, cleaned]) + b"\n"


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {clean_text(key): _clean(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(inner) for inner in value]
    return clean_text(value) if isinstance(value, str) else value


def _decode_line(line: bytes) -> list[Event]:
    """Returns one event, or none for an empty line. Raises MsgspecError, KeyError."""
    if line == _PROBE:
        return []
    kind, raw = msgspec.json.decode(line, type=tuple[str, msgspec.Raw])
    event: Any = msgspec.json.decode(raw, type=_KINDS[kind])
    return [event]
