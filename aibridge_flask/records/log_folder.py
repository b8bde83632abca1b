"""The folder that holds the logs of all workers of a host, one folder each.

A lock on a log's folder shows that its worker lives; the kernel frees it however the process dies. Log and
lock are one inode, so neither can be there without the other.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from sqlalchemy import URL

from ..config.settings import Settings
from ..errors import ConfigError
from ..model import new_id
from .log import SUFFIX

_DATABASE_FILE = "database"
_HOST_FILE = "host-id"
_KEY_FILE = "secret-key"
_UNREADABLE = "unreadable"  # no database's identity: such a log is left alone
REJECTED = "rejected"


def prepare(configured: str, url: URL) -> Path:
    """Returns the folder, and creates it for its owner alone. Raises ConfigError if it cannot be written."""
    folder = place(configured, url)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid() or not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError
    except OSError as error:
        raise ConfigError(f"spool_dir: {folder} cannot be used: {type(error).__name__}") from None
    return folder.resolve()


def place(configured: str, url: URL) -> Path:
    """Returns where the folder is, if need be beside the SQLite file, in systemd's state directory, or in the
    working directory.
    """
    if configured:
        return Path(configured)
    if url.get_backend_name() == "sqlite":
        return Path(f"{url.database}-spool")
    state_directory = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(state_directory) if state_directory else Path("aibridge-spool")


def host_id(folder: Path) -> str:
    """Returns the id of this host's folder, which is created once. Raises OSError."""
    return _created_once(folder / _HOST_FILE, new_id)


def secret_key(folder: Path) -> str:
    """Returns the key that this host's workers sign with, which is created once. Raises OSError."""
    return _created_once(folder / _KEY_FILE, secrets.token_urlsafe)


def signing_key(settings: Settings, url: URL) -> str:
    """Returns `secret_key`, or the key of this host's workers. Raises ConfigError, OSError."""
    return settings.secret_key.value or secret_key(prepare(settings.spool_dir, url))


def _created_once(file: Path, make: Callable[[], str]) -> str:
    with contextlib.suppress(FileNotFoundError):
        if text := file.read_text("ascii").strip():
            return text
    temporary = file.with_name(f"{file.name}.{new_id()}")
    try:
        temporary.touch(0o600)
        temporary.write_text(make(), "ascii")
        with contextlib.suppress(FileExistsError):
            os.link(temporary, file)  # the first process wins
    finally:
        temporary.unlink(missing_ok=True)
    return file.read_text("ascii").strip()


def url_identity(url: URL) -> str:
    """Identifies a database as long as its own id is unknown; without user and password."""
    text = f"{url.get_backend_name()}://{url.host or ''}:{url.port or ''}/{url.database or ''}"
    return "url:" + hashlib.sha256(text.encode()).hexdigest()[:32]


def set_database(log: Path, identity: str) -> None:
    """Notes to which database a log belongs. On a full disk it stays as it was: the records matter more."""
    if database_of(log) == identity:
        return
    temporary = log / f"{_DATABASE_FILE}.new"
    with contextlib.suppress(OSError):
        temporary.write_text(identity, "ascii")
        temporary.replace(log / _DATABASE_FILE)


def database_of(log: Path) -> str:
    """Returns the identity of the database to which a log belongs, or "" if it names none."""
    try:
        return (log / _DATABASE_FILE).read_text("ascii")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, UnicodeError):
        return _UNREADABLE


def logs_of(folder: Path, identities: Collection[str]) -> list[Path]:
    """Returns the logs that belong to a database or to none yet; without identities, all logs."""
    return [log for log in logs(folder) if not identities or database_of(log) in ("", *identities)]


def logs(folder: Path) -> list[Path]:
    """Returns the logs of all workers that use this folder, living and dead."""
    found: list[Path] = []
    with contextlib.suppress(OSError):
        found = [Path(entry.path) for entry in os.scandir(folder) if _is_log(entry)]
    return sorted(found)


def _is_log(entry: os.DirEntry[str]) -> bool:
    return entry.name.count("-") == 4 and entry.is_dir(follow_symlinks=False)


@contextlib.contextmanager
def lock_if_dead(log: Path) -> Iterator[bool]:
    """Yields whether a log's worker is dead; its log is then locked until the end of the block."""
    try:
        descriptor = os.open(log, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield False
        return
    _held.add(descriptor)
    try:
        yield _try_lock(descriptor, log)
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


_held: set[int] = set()


def _close_in_child() -> None:
    """A forked process would keep a dead worker's log locked."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_close_in_child)


def _try_lock(descriptor: int, log: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(descriptor).st_ino == log.stat().st_ino  # else another worker has removed it
    except OSError:
        return False


def remove(log: Path) -> None:
    """Deletes a log whose lock is held, and which has no segments: with one it stays."""
    with contextlib.suppress(OSError):
        entries = [Path(entry.path) for entry in os.scandir(log)]
        if not any(entry.suffix == SUFFIX for entry in entries):
            for entry in entries:
                entry.unlink()
            log.rmdir()
