"""The limits last known, in a file of the log's folder, for a worker that starts without the database."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile

from marshmallow import ValidationError

from ..config.limits import definition
from ..config.settings import LimitSettings
from ..model import new_id
from ..records.events import now
from .definitions import make_limit
from .limit import API, FILE, Limit

_NAME = "limits.json"


def remember(folder: Path, limits: Sequence[Limit]) -> None:
    """Replaces the file. What cannot be written is not remembered."""
    rows = [[each.id, each.source, definition(each.settings), each.created_at.isoformat()] for each in limits]
    with contextlib.suppress(OSError):
        with NamedTemporaryFile("w", dir=folder, prefix=_NAME, delete=False) as file:
            json.dump(rows, file)
        Path(file.name).replace(folder / _NAME)


def is_remembered(folder: Path) -> bool:
    """Whether a worker of this host has known the limits before."""
    return (folder / _NAME).exists()


def recall(folder: Path, file_limits: Sequence[LimitSettings]) -> tuple[Limit, ...]:
    """Returns the limits of the configuration file, and those last known that were made at run time."""
    own = {settings.name: Limit(new_id(), settings, FILE, now()) for settings in file_limits}
    made = [limit for limit in _recalled(folder) if limit.source == API and limit.name not in own]
    return (*own.values(), *made)


def _recalled(folder: Path) -> list[Limit]:
    try:
        rows = json.loads((folder / _NAME).read_text())
        return [make_limit(*row) for row in rows]
    except (OSError, ValueError, TypeError, AttributeError, ValidationError):
        return []
