"""The folder of what the database rejects.

Events are set aside there, each with the reason, and never block.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from .counters import Counters
from .events import Event
from .log_folder import REJECTED

_log = logging.getLogger("aibridge.records")
_MAX_FILE_BYTES = 64 << 20


class Rejects:
    """Appends to one file per worker, and counts."""

    def __init__(self, folder: Path, worker_id: str, counters: Counters) -> None:
        self._path, self._counters = folder / REJECTED / f"{worker_id}.jsonl", counters

    def set_aside(self, event: Event, reason: str) -> None:
        """Sets an event aside. It stays in the log too, for as long as that is kept."""
        members = msgspec.to_builtins(event, enc_hook=dict)
        self._append({"reason": reason, "event": type(event).__name__, **members})

    def set_unknown_aside(self, value: Any) -> None:
        """Sets an event of another version aside."""
        self._append({"reason": "unknown to this version", "event": repr(value)[:10_000]})

    def report_damage(self, name: str, places: int) -> None:
        """Counts places of a log or spool that cannot be read."""
        if places:
            _log.error("damaged places in the log %s: %d", name, places)
            self._counters.add_lost(places)

    def _append(self, line: Mapping[str, Any]) -> None:
        _log.error("a record is set aside in %s: %s", self._path.parent, line["reason"])
        data = json.dumps(line).encode() + b"\n"
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                if os.fstat(file).st_size < _MAX_FILE_BYTES:
                    os.write(file, data)
            finally:
                os.close(file)
        self._counters.add_rejected(1)
