"""What gunicorn does for each request and response, in fewer steps for those that are usual."""

from __future__ import annotations

import re
from email.utils import formatdate
from functools import lru_cache
from time import time
from typing import Any

from gunicorn.http.message import Request
from gunicorn.http.wsgi import Response

_MAX_JOINED = 65_536  # bytes of a piece that are copied behind the head
_LONG_NAME = 64  # characters
_USUAL_HEAD = re.compile(
    r"(GET|POST|PUT|PATCH|DELETE|HEAD|OPTIONS) (/(?!/)[!-\"$-~]*) HTTP/1\.1"
    r"((?:\r\n[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*)+)"
)
_HAVE_RULES = frozenset(("HOST", "CONTENT-TYPE", "EXPECT"))


class UsualRequest(Request):  # type: ignore[misc]
    """Reads a head in one step instead of line by line.

    If anything of it is unusual, gunicorn reads it, and so alone decides what is wrong with it.
    """

    def _parse_python(self, unreader: Any, buffer: Any) -> Any:
        end = buffer.find(b"\r\n\r\n")
        longest = min(self.limit_request_field_size - 2, self.limit_request_line or _MAX_JOINED)
        head = _USUAL_HEAD.fullmatch(buffer[:end].decode("latin-1")) if 0 < end <= longest else None
        if head is None or head[3].count("\r\n") > self.limit_request_fields:
            return super()._parse_python(unreader, buffer)
        self.method, self.uri, self.version = head[1], head[2], (1, 1)
        path, _, query = head[2].partition("?")
        self.path, self.query, self.fragment = path, query, ""
        self.headers = self._fields(head[3].split("\r\n")[1:])
        return bytes(buffer[end + 4 :])

    def _fields(self, lines: list[str]) -> list[tuple[str, str]]:
        """Returns what gunicorn's rules leave of the fields. Raises ParseException."""
        schemes, state, seen = self.cfg.secure_scheme_headers, [False], set[str]()
        fields: list[tuple[str, str]] = []
        for line in lines:
            name, _, value = line.partition(":")
            field = _upper(name) if len(name) < _LONG_NAME else name.upper(), value.strip(" \t")
            is_trusted_to_some = field[0] in schemes or "_" in name
            if is_trusted_to_some or field[0] in _HAVE_RULES:
                trusted = self._peer_trusted_for_forwarded() if is_trusted_to_some else ({}, [])
                kept = self._apply_header_policy(*field, state, seen, *trusted)
                fields += [kept] if kept else []
            else:
                fields.append(field)
        return fields


@lru_cache
def _upper(name: str) -> str:
    """Returns the one string that all requests with this header share, which may last as long as a stream."""
    return name.upper()


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


def http_date(timestamp: float | None = None) -> str:
    """Returns a time, the current one by default, for a head."""
    return _date(int(time() if timestamp is None else timestamp))


class OneWriteResponse(Response):  # type: ignore[misc]
    """Sends the head together with the first piece of the body: two writes wake the client twice."""

    sock: Any

    def write(self, piece: bytes) -> None:
        if self.headers_sent and self.chunked and piece and isinstance(piece, bytes):
            self.sent += len(piece)
            self.sock.sendall(b"%X\r\n%b\r\n" % (len(piece), piece))
        elif self.headers_sent or len(piece) > _MAX_JOINED:
            super().write(piece)
        else:
            self._write_with_head(piece)

    def _write_with_head(self, piece: bytes) -> None:
        sock: Any = self.sock
        collected = self.sock = _Collected()
        try:
            super().write(piece)
        finally:
            self.sock = sock
            sock.sendall(b"".join(collected.pieces))


class _Collected:
    """Takes what would be sent."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.sendall = self.pieces.append
