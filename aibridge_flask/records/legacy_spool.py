"""Reads what earlier versions left on disk: one file per worker, one JSON line per event."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
from sqlalchemy import URL

from .events import Event
from .frames import decode_event
from .log_reader import open_regular

_SUFFIX, _LOCK_SUFFIX = ".spool", ".lock"


def files(folder: Path, configured: str, url: URL) -> list[Path]:
    """Returns the spools in the folder, and in the temporary folder, where they once were by default.

    A folder of another user is left alone: anybody can create one in the temporary folder.
    """
    folders = [folder]
    if not configured and url.get_backend_name() != "sqlite":
        name = hashlib.sha256(url.render_as_string().encode()).hexdigest()[:16]
        folders.append(Path(tempfile.gettempdir()) / f"aibridge-{os.getuid()}-{name}")
    found: list[Path] = []
    for place in folders:
        with contextlib.suppress(OSError):
            if _is_own_folder(place):
                found += [path for path in place.iterdir() if path.suffix in (_SUFFIX, _LOCK_SUFFIX)]
    return sorted({path.with_suffix(_SUFFIX) for path in found})


def _is_own_folder(place: Path) -> bool:
    """Raises OSError."""
    status = place.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()


@contextlib.contextmanager
def lock_if_dead(spool: Path) -> Iterator[bool]:
    """Yields whether no worker of the earlier version uses a spool. One without a lock file is nobody's."""
    try:
        descriptor = os.open(spool.with_suffix(_LOCK_SUFFIX), os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        yield True
        return
    except OSError:
        yield False
        return
    try:
        yield _try_lock(descriptor)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def events(spool: Path) -> Iterator[Event | None]:
    """Yields the events of a spool, and None for each line that cannot be read. A missing spool has none.

    A last line without its end was cut by a kill; nobody relied on it. Raises OSError; only without it the
    end was reached.
    """
    try:
        lines = open_regular(spool, os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    with lines:
        for line in lines:
            try:
                yield from _decode_line(line)
            except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
                if line.endswith(b"\n"):
                    yield None


def remove(spool: Path) -> None:
    """Deletes a spool and its lock file. Raises OSError."""
    for path in (spool, spool.with_suffix(_LOCK_SUFFIX)):
        path.unlink(missing_ok=True)


def _decode_line(line: bytes) -> list[Event]:
    """Returns one event, or none for an empty line. Raises MsgspecError, KeyError."""
    if not line.strip():
        return []
    name, raw = msgspec.json.decode(line, type=tuple[str, dict])  # type: ignore[type-arg]
    return [decode_event(name, raw)]
