"""Raw dumps of the requests to an upstream and of its responses, for each attempt, with credentials masked.

Requests only queue their bytes. A real thread masks and writes them, and deletes old dumps.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import BridgeError
from ..headers import HeaderMapping, bare_secret, mask_secret
from ..model import HeaderList, UpstreamRequest
from ..protocols import UpstreamResponse
from ..waiting import Client
from .dump_file import DumpFile
from .dump_writer import DumpWriter
from .transport import Transport, WireResponse

_MAX_NAME_LENGTH = 99
_UNSAFE = re.compile(r"[^A-Za-z0-9._@+=~-]")
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
_SECRET_HEADER = re.compile(
    r"(?i)authorization|authenticat|cookie|api-?key|secret|password|credential|signature|-token$"
)
_MIN_SECRET_LENGTH = 8  # shorter ones are words such as `dummy`, which may occur anywhere


def folder_name(model: str) -> str:
    """Returns a folder name that every platform accepts.

    >>> [folder_name(name) for name in ("azure/gpt-5", "..", "", "/etc\\0", "C:\\\\x", "NUL.txt")]
    ['azure-gpt-5', '_', '_', '-etc-', 'C--x', '_NUL.txt']
    >>> len(folder_name("a" * 300))
    99
    """
    name = _UNSAFE.sub("-", model[:_MAX_NAME_LENGTH]).strip(".")
    return f"_{name}" if not name or _DEVICE.match(name) else name


class DumpingSender:
    """A sender that wraps a transport and dumps its requests and responses."""

    def __init__(self, transport: Transport, provider: str, folder: str) -> None:
        self._transport, self._folder = transport, Path(folder) / provider
        self._writer = DumpWriter(Path(folder))
        self._lock, self._last_number = threading.Lock(), 0

    def send(self, request: UpstreamRequest, client: Client) -> UpstreamResponse:
        """Sends as the transport does, and dumps request and response."""
        stem, secrets = self._stem(request), _secrets(request.headers)
        head = _request_head(request)
        self._write(DumpFile(f"{stem}.req.txt", secrets, _encoding(request.headers)), head, request.body)
        try:
            response = self._transport.send(request, client)
        except BaseException as error:
            message = error.message if isinstance(error, BridgeError) else type(error).__name__
            self._write(DumpFile(f"{stem}.req_error.txt", secrets), head, message.encode() + b"\n")
            raise
        secrets += _secrets(response.headers)
        file = DumpFile(f"{stem}.resp.txt", secrets, _encoding(response.headers))
        return _DumpedResponse(response, self._writer, file)

    def close(self) -> None:
        """Closes idle connections, and writes what is queued."""
        self._transport.close()
        self._writer.close()

    def _write(self, file: DumpFile, *parts: bytes) -> None:
        for part in parts:
            self._writer.put(file, part)
        self._writer.end(file)

    def _stem(self, request: UpstreamRequest) -> Path:
        """Returns a path without suffix. Its number is unique, also for attempts within one millisecond."""
        with self._lock:
            self._last_number = max(self._last_number + 1, time.time_ns() // 1_000_000)
            return self._folder / folder_name(request.model) / f"{self._last_number}-{request.id}"


class _DumpedResponse:
    """A response that is dumped as it is read."""

    def __init__(self, response: WireResponse, writer: DumpWriter, file: DumpFile) -> None:
        self._response, self._writer, self._file = response, writer, file
        self.status, self.headers = response.status, response.headers
        self._is_read = False
        writer.put(file, _head(f"HTTP/1.1 {response.status} {response.reason}", response.headers))

    @property
    def complete(self) -> bool:
        return self._response.complete

    def iter_body(self, idle_interval: float) -> Iterator[bytes]:
        self._is_read = True
        for piece in self._response.iter_body(idle_interval):
            if piece:
                self._writer.put(self._file, piece)
            yield piece

    def close(self) -> None:
        if not self._is_read:  # another attempt follows; the bytes received so far show why
            with contextlib.suppress(BridgeError):
                next(self.iter_body(0.0), b"")
        self._writer.end(self._file)
        self._response.close()


def _request_head(request: UpstreamRequest) -> bytes:
    target = request.url.partition("://")[2].partition("/")[2]
    return _head(f"{request.method} /{target} HTTP/1.1", request.headers)


def _head(first: str, headers: HeaderList) -> bytes:
    lines = [first, *(f"{name}: {_mask_value(name, value)}" for name, value in headers)]
    return "\r\n".join([*lines, "\r\n"]).encode("latin-1", "replace")


def _mask_value(name: str, value: str) -> str:
    for secret in _secret_parts(name, value):
        value = value.replace(secret, mask_secret(secret))
    return value


def _secret_parts(name: str, value: str) -> list[str]:
    """Returns the secret parts of a header's value: neither the scheme of an `Authorization` nor
    the names of cookies and their attributes.

    >>> _secret_parts("Authorization", "Bearer abc"), _secret_parts("Set-Cookie", "sid=a=b; Path=/")
    (['abc'], ['a=b'])
    >>> _secret_parts("Authorization", "bearer  abc"), _secret_parts("X-Api-Key", "Bearer abc")
    (['abc'], ['abc'])
    """
    lower = name.lower()
    if not _SECRET_HEADER.search(name) or not value:
        return []
    if lower == "set-cookie":
        return [part for part in [value.partition(";")[0].partition("=")[2].strip()] if part]
    if lower == "cookie":
        parts = (pair.partition("=") for pair in value.split(";"))
        return [secret for name, _, rest in parts if (secret := (rest or name).strip())]
    secret = bare_secret(value)
    has_other_scheme = secret == value and "auth" in lower
    return [(has_other_scheme and value.partition(" ")[2]) or secret or value]


def _secrets(headers: HeaderList) -> tuple[bytes, ...]:
    parts = (part for name, value in headers for part in _secret_parts(name, value))
    secrets = (part.encode("latin-1", "replace") for part in parts)
    return tuple(secret for secret in secrets if len(secret) >= _MIN_SECRET_LENGTH)


def _encoding(headers: HeaderList) -> str:
    """Returns the content codings of a body; repeated headers count together."""
    return HeaderMapping(headers).get("content-encoding", "")
