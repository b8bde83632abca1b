"""The file of one dump, and the deletion of old files. Used by the dump thread only."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from ..content_coding import BoundedDecoder, codings
from ..errors import BridgeError
from ..headers import mask_secret

MAX_FILE_BYTES = 32 << 20
MAX_FOLDER_BYTES = 1 << 30
_MAX_AGE_SECONDS = 7 * 86_400.0
_NOTE_BYTES = 200
_BLOCK_BYTES = 4096
_MAX_SHOWN_PREFIX = 8  # bytes of a secret's beginning that may end a file
_DUMP = re.compile(r"\d{13,}-[0-9a-f-]*\.(req|resp|req_error)\.txt")


class DumpFile:
    """Appends by `write`, which masks `secrets`, also one that is split over two pieces.

    Secrets would not be found in a compressed body: it is decoded. `content_encoding` names its codings; the
    first piece is the head. `cut` says why the rest is missing; requests set it and `ended`.
    """

    def __init__(self, path: str, secrets: tuple[bytes, ...], content_encoding: str = "") -> None:
        self._path, self._content_encoding = Path(path), content_encoding
        self._decoders: tuple[BoundedDecoder, ...] = ()
        self._has_head = False
        self._secrets = [
            (secret, mask_secret(secret.decode("latin-1")).encode("latin-1")) for secret in secrets
        ]
        self._unwritten, self._size = b"", 0
        self._exists = self._is_closed = False
        self.cut = ""
        self.ended = False

    def write(self, data: bytes, last: bool) -> None:
        """Appends data. Raises OSError; later calls then do nothing."""
        if self._is_closed:
            return
        self._is_closed = last
        decoded = self._decode(data)
        output = self._mask(decoded, self._is_closed)
        room = MAX_FILE_BYTES - _NOTE_BYTES - self._size
        if len(output) > room:
            self._is_closed, self.cut = True, f"a file is {MAX_FILE_BYTES >> 20} MiB at most"
            output = output[:room]
        if self.cut and self._is_closed:
            output += f"\n[cut: {self.cut}]\n".encode()
        if output or not self._exists:
            try:
                self._append(output)
            except OSError:
                self._is_closed = True
                raise

    def _decode(self, data: bytes) -> bytes:
        """Returns data without its content codings. What cannot be decoded is left out, and ends the dump."""
        try:
            if not self._has_head:
                self._has_head, names = True, codings(self._content_encoding)
                self._decoders = tuple(BoundedDecoder(name, MAX_FILE_BYTES) for name in reversed(names))
                return data
            for decoder in self._decoders:
                data = decoder.feed(data)
        except BridgeError as error:
            self._is_closed, self.cut = True, f"a compressed body: {error.message}"
            return data if not self._decoders else b""
        return data

    def _append(self, data: bytes) -> None:
        """Opens the file each time: streams may last long, and requests need the descriptors."""
        file = self._open(os.O_APPEND) if self._exists else self._create()
        with open(file, "ab", buffering=0) as stream:  # noqa: PTH123 - by its descriptor
            self._exists = True
            remaining = memoryview(data)
            while remaining:
                remaining = remaining[stream.write(remaining) :]
        self._size += len(data)

    def _create(self) -> int:
        for folder in reversed(self._path.parents[:3]):
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700, parents=True)
        return self._open(os.O_CREAT | os.O_EXCL)

    def _open(self, flags: int) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_NOFOLLOW | flags, 0o600)

    def _mask(self, data: bytes, last: bool) -> bytes:
        """Masks secrets. Bytes at the end that may begin a secret stay unwritten until more data comes."""
        text, keep = self._unwritten + data, 0
        for secret, hint in self._secrets:
            text = text.replace(secret, hint)
        for secret, _ in self._secrets:
            keep = max(keep, _overlap(text, secret))
        self._unwritten = text[len(text) - keep :]
        if last:
            return text[: len(text) - keep] + (self._unwritten if keep < _MAX_SHOWN_PREFIX else b"...")
        return text[: len(text) - keep]


def _overlap(text: bytes, secret: bytes) -> int:
    """Returns how many of the last bytes of `text` are the first bytes of `secret`.

    >>> _overlap(b"key: sk-a", b"sk-abc"), _overlap(b"key: sk-b", b"sk-abc")
    (4, 0)
    """
    at = text.find(secret[:1], max(0, len(text) - len(secret) + 1))
    while at >= 0 and not secret.startswith(text[at:]):
        at = text.find(secret[:1], at + 1)
    return len(text) - at if at >= 0 else 0


def sweep(folder: Path) -> None:
    """Deletes dumps that are too old, and the oldest ones beyond the limit of the folder."""
    remaining, oldest = MAX_FOLDER_BYTES, time.time() - _MAX_AGE_SECONDS
    for modified, size, path in sorted(_dumps(folder), reverse=True):
        remaining -= size
        if remaining < 0 or modified < oldest:
            with contextlib.suppress(OSError):
                path.unlink()
                path.parent.rmdir()  # fails unless it is empty


def delete_dumps(folder: Path, ids: Collection[str]) -> int:
    """Deletes the dumps of interceptions; returns how many files."""
    deleted = 0
    for _, _, path in _dumps(folder):
        if path.name.partition("-")[2].partition(".")[0] in ids:
            with contextlib.suppress(OSError):
                path.unlink()
                deleted += 1
    return deleted


def _dumps(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Yields modification time, size on disk and path of each dump."""
    for provider in _folders(folder):
        for model in _folders(provider):
            for entry in _entries(model):
                if _DUMP.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        size = -(-status.st_size // _BLOCK_BYTES) * _BLOCK_BYTES
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
