"""A dump's file while it grows, and the clearing away of old ones. For the dumps' thread alone."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from ..headers import mask_secret

FILE_LIMIT = 32 << 20
FOLDER_LIMIT = 1 << 30
_OLDEST = 7 * 86_400.0
_NOTE = 200
_BLOCK = 4096
_TELLING = 8  # so much of a secret's beginning is not shown at a file's end
_DUMP = re.compile(r"\d{13,}-[0-9a-f-]*\.(req|resp|req_error)\.txt")


class DumpFile:
    """Grows by `write`, which masks `secrets`, also one that comes in two pieces. `cut` says why the
    rest is left out; it and `ended` are the requests' to set."""

    def __init__(self, path: str, secrets: tuple[bytes, ...]) -> None:
        self._path = Path(path)
        self._secrets = [
            (secret, mask_secret(secret.decode("latin-1")).encode("latin-1")) for secret in secrets
        ]
        self._kept, self._size = b"", 0
        self._begun = self._full = False
        self.cut = ""
        self.ended = False

    def write(self, data: bytes, last: bool) -> None:
        """Raises OSError, after which the file stays as it is."""
        if self._full:
            return
        self._full = last
        out = self._masked(data, last)
        room = FILE_LIMIT - _NOTE - self._size
        if len(out) > room:
            self._full, self.cut = True, f"a file is {FILE_LIMIT >> 20} MiB at most"
            out = out[:room]
        if self.cut and self._full:
            out += f"\n[cut: {self.cut}]\n".encode()
        if out or not self._begun:
            try:
                self._append(out)
            except OSError:
                self._full = True
                raise

    def _append(self, data: bytes) -> None:
        """Opened each time: a stream may last long, and the requests need the descriptors."""
        file = self._opened(os.O_APPEND) if self._begun else self._made()
        with open(file, "ab", buffering=0) as stream:  # noqa: PTH123 - by its descriptor
            self._begun = True
            left = memoryview(data)
            while left:
                left = left[stream.write(left) :]
        self._size += len(data)

    def _made(self) -> int:
        for folder in reversed(self._path.parents[:3]):
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700, parents=True)
        return self._opened(os.O_CREAT | os.O_EXCL)

    def _opened(self, how: int) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_NOFOLLOW | how, 0o600)

    def _masked(self, data: bytes, last: bool) -> bytes:
        """What looks like the beginning of a secret waits for what follows."""
        text, keep = self._kept + data, 0
        for secret, hint in self._secrets:
            text = text.replace(secret, hint)
        for secret, _ in self._secrets:
            keep = max(keep, _overlap(text, secret))
        self._kept = text[len(text) - keep :]
        if last:
            return text[: len(text) - keep] + (self._kept if keep < _TELLING else b"...")
        return text[: len(text) - keep]


def _hint(secret: bytes) -> bytes:
    return mask_secret(secret.decode("latin-1")).encode("latin-1")


def _overlap(text: bytes, secret: bytes) -> int:
    """How many of the text's last bytes are the secret's first ones.

    >>> _overlap(b"key: sk-a", b"sk-abc"), _overlap(b"key: sk-b", b"sk-abc")
    (4, 0)
    """
    at = text.find(secret[:1], max(0, len(text) - len(secret) + 1))
    while at >= 0 and not secret.startswith(text[at:]):
        at = text.find(secret[:1], at + 1)
    return len(text) - at if at >= 0 else 0


def sweep(folder: Path) -> None:
    """Removes dumps that are too old, and the oldest of those that are too many."""
    left, oldest = FOLDER_LIMIT, time.time() - _OLDEST
    found = sorted(_dumps(folder), reverse=True)
    for changed, size, path in found:
        left -= size
        if left < 0 or changed < oldest:
            with contextlib.suppress(OSError):
                path.unlink()
                path.parent.rmdir()  # fails as long as it holds something


def _dumps(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """When each was changed last, and the room that it takes."""
    for provider in _folders(folder):
        for model in _folders(provider):
            for entry in _entries(model):
                if _DUMP.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        size = -(-status.st_size // _BLOCK) * _BLOCK
                        yield status.st_mtime, size, Path(entry.path)


def _folders(folder: Path) -> Iterator[Path]:
    for entry in _entries(folder):
        if entry.is_dir(follow_symlinks=False):
            yield Path(entry.path)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):  # another worker sweeps too
        return []
