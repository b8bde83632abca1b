"""How far the database is behind the logs of a host, as their files show it."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

from msgspec import Struct

from . import log_folder, log_reader


class Backlog(Struct, frozen=True):
    """`seconds` is the age of the oldest event that is not applied."""

    seconds: float = 0.0
    bytes: int = 0
    events: int = 0


def measure(folder: Path, identities: Collection[str] = ()) -> Backlog:
    """Measures the logs of a database (`log_folder.logs_of`). Reads the headers of unapplied frames."""
    oldest, size, events = time.time(), 0, 0
    for log in log_folder.logs_of(folder, identities):
        position, end = log_reader.read_position(log), log_reader.end_of(log)
        if position >= end:
            continue
        size += end - position
        for count, appended in log_reader.scan(log, position):
            events += count
            oldest = min(oldest, appended)
    return Backlog(time.time() - oldest if size else 0.0, size, events)


def is_applied(folder: Path, own: Path, identities: Collection[str]) -> bool:
    """Whether all logs of a database but a worker's own are applied."""
    others = (log for log in log_folder.logs_of(folder, identities) if log != own)
    return all(log_reader.read_position(log) >= log_reader.end_of(log) for log in others)
