"""Raw dumps: what went to an upstream and what came back, for each attempt, with credentials masked.

Requests only hand over what they sent and got; a real thread masks it, writes it and clears old dumps away.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import BridgeError
from ..headers import mask_secret
from ..model import HeaderList, UpstreamRequest, UpstreamResponse
from ..waiting import Client
from .dump_file import DumpFile
from .dump_writer import DumpWriter
from .transport import Transport, WireResponse

_LONGEST = 99
_ODD = re.compile(r"[^A-Za-z0-9._@+=~-]")
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
_SECRET = re.compile(r"(?i)authorization|cookie|api-?key|secret|password|credential|signature|-token$")
_NO_SECRET = 8  # shorter ones are words such as `dummy`, which may stand anywhere


def folder_name(model: str) -> str:
    """What a folder may be called anywhere.

    >>> [folder_name(name) for name in ("azure/gpt-5", "..", "", "/etc\\0", "C:\\\\x", "NUL.txt")]
    ['azure-gpt-5', '_', '_', '-etc-', 'C--x', '_NUL.txt']
    >>> len(folder_name("a" * 300))
    99
    """
    name = _ODD.sub("-", model[:_LONGEST]).strip(".")
    return f"_{name}" if not name or _DEVICE.match(name) else name


class DumpingSender:
    """Stands in for a provider's transport, and dumps what goes through it."""

    def __init__(self, transport: Transport, provider: str, folder: str) -> None:
        self._transport, self._folder = transport, Path(folder) / provider
        self._writer = DumpWriter(Path(folder))
        self._lock, self._last = threading.Lock(), 0

    def send(self, outgoing: UpstreamRequest, client: Client) -> UpstreamResponse:
        """As the transport's own."""
        stem, secrets = self._stem(outgoing), _secrets(outgoing.headers)
        head = _request_head(outgoing)
        self._write(DumpFile(f"{stem}.req.txt", secrets), head, outgoing.body)
        try:
            answer = self._transport.send(outgoing, client)
        except BaseException as error:
            words = error.message if isinstance(error, BridgeError) else type(error).__name__
            self._write(DumpFile(f"{stem}.req_error.txt", secrets), head, words.encode() + b"\n")
            raise
        return _DumpedResponse(answer, self._writer, DumpFile(f"{stem}.resp.txt", secrets))

    def close(self) -> None:
        """Ends the connections that wait, and writes what has been handed over."""
        self._transport.close()
        self._writer.close()

    def _write(self, file: DumpFile, *parts: bytes) -> None:
        for part in parts:
            self._writer.put(file, part)
        self._writer.end(file)

    def _stem(self, outgoing: UpstreamRequest) -> Path:
        """Attempts at one request may come within a millisecond."""
        with self._lock:
            self._last = max(self._last + 1, time.time_ns() // 1_000_000)
            return self._folder / folder_name(outgoing.model) / f"{self._last}-{outgoing.id}"


class _DumpedResponse:
    """An answer that is dumped as it is read."""

    def __init__(self, answer: WireResponse, writer: DumpWriter, file: DumpFile) -> None:
        self._answer, self._writer, self._file = answer, writer, file
        self.status, self.headers = answer.status, answer.headers
        self._read = False
        writer.put(file, _head(f"HTTP/1.1 {answer.status} {answer.reason}", answer.headers))

    @property
    def complete(self) -> bool:
        return self._answer.complete

    def iter_body(self, idle_interval: float) -> Iterator[bytes]:
        self._read = True
        for piece in self._answer.iter_body(idle_interval):
            if piece:
                self._writer.put(self._file, piece)
            yield piece

    def close(self) -> None:
        if not self._read:  # another attempt follows: what has come already tells why
            with contextlib.suppress(BridgeError):
                next(self.iter_body(0.0), b"")
        self._writer.end(self._file)
        self._answer.close()


def _request_head(outgoing: UpstreamRequest) -> bytes:
    target = outgoing.url.partition("://")[2].partition("/")[2]
    return _head(f"{outgoing.method} /{target} HTTP/1.1", outgoing.headers)


def _head(first: str, headers: HeaderList) -> bytes:
    lines = [first, *(f"{name}: {_shown(name, value)}" for name, value in headers)]
    return "\r\n".join([*lines, "\r\n"]).encode("latin-1", "replace")


def _shown(name: str, value: str) -> str:
    return value[: -len(secret)] + mask_secret(secret) if (secret := _secret(name, value)) else value


def _secret(name: str, value: str) -> str:
    """What of a header's value is secret: an `Authorization`'s scheme is not."""
    if not _SECRET.search(name):
        return ""
    return value.partition(" ")[2] or value if "authorization" in name.lower() else value


def _secrets(headers: HeaderList) -> tuple[bytes, ...]:
    found = (_secret(name, value).encode("latin-1", "replace") for name, value in headers)
    return tuple(secret for secret in found if len(secret) >= _NO_SECRET)
