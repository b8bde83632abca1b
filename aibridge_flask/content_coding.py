"""Content codings (RFC 9110 8.4), decoded for reading only and never beyond a limit."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Protocol

import brotli
import zstandard

from .errors import BodyTooLarge, InvalidBody, UnsupportedEncoding

_STEP = 1 << 16
_MOST_CODINGS = 4  # nobody uses more than one; each is a pass over the whole body
_MOST_MEMBERS = 10_000  # a body of nothing but empty ones would take hours


class _Decoder(Protocol):
    """Gives at most about `room` bytes a call; `more` tells that it could go on without input."""

    def feed(self, data: bytes, room: int) -> bytes: ...
    @property
    def more(self) -> bool: ...


def _members() -> Iterator[None]:
    """One for each further member or frame of a body; raises EOFError where there are too many."""
    yield from repeat(None, _MOST_MEMBERS)
    raise EOFError


class _Zlib:
    def __init__(self, bits: int) -> None:
        self._bits, self._inflater = bits, zlib.decompressobj(bits)
        self._members = _members()

    def feed(self, data: bytes, room: int) -> bytes:
        data = self._inflater.unconsumed_tail + data
        if self._inflater.eof:
            data = self._inflater.unused_data + data
            if data:
                next(self._members)
                self._inflater = zlib.decompressobj(self._bits)
        return self._inflater.decompress(data, room)

    @property
    def more(self) -> bool:
        return bool(self._inflater.unconsumed_tail or self._inflater.unused_data)


class _Deflate(_Zlib):
    """`deflate` is zlib by the letter, and raw deflate in what some clients send."""

    def __init__(self) -> None:
        super().__init__(zlib.MAX_WBITS)
        self._first = True

    def feed(self, data: bytes, room: int) -> bytes:
        try:
            out = super().feed(data, room)
        except zlib.error:
            if not self._first:
                raise
            self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
            out = super().feed(data, room)
        self._first = False
        return out


class _Brotli:
    def __init__(self) -> None:
        self._inflater = brotli.Decompressor()

    def feed(self, data: bytes, room: int) -> bytes:
        return bytes(self._inflater.process(data, output_buffer_limit=room))

    @property
    def more(self) -> bool:
        return not self._inflater.can_accept_more_data()


class _Zstd:
    """Four bytes of zstd can stand for 128 KB at the most (RFC 8878 3.1.1.2), so input in small
    steps bounds what one call gives."""

    STEP = 1024

    def __init__(self) -> None:
        self._make = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj
        self._inflater = self._make()
        self._frames = _members()
        self._left = memoryview(b"")

    def feed(self, data: bytes, room: int) -> bytes:
        if data:
            self._left = memoryview(bytes(self._left) + data)
        if self._inflater.eof and self._left:
            next(self._frames)
            self._inflater = self._make()
        step, self._left = self._left[: self.STEP], self._left[self.STEP :]
        out = self._inflater.decompress(bytes(step)) if step else b""
        if self._inflater.eof and self._inflater.unused_data:
            self._left = memoryview(self._inflater.unused_data + bytes(self._left))
        return out

    @property
    def more(self) -> bool:
        return bool(self._left)


_DECODERS: dict[str, Callable[[], _Decoder]] = {
    "gzip": lambda: _Zlib(zlib.MAX_WBITS | 16),
    "x-gzip": lambda: _Zlib(zlib.MAX_WBITS | 16),
    "deflate": _Deflate,
    "br": _Brotli,
    "zstd": _Zstd,
}
_BROKEN = (zlib.error, brotli.error, zstandard.ZstdError, EOFError)


def codings(header: str) -> list[str]:
    """The codings of a `Content-Encoding`, in the order in which they were applied; too many are
    one that is unknown.

    >>> codings("gzip, BR, identity"), codings("gzip," * 5)
    (['gzip', 'br'], ['too many'])
    """
    names = (name.strip().lower() for name in header.split(","))
    found = [name for name in names if name and name != "identity"]
    return found if len(found) <= _MOST_CODINGS else ["too many"]


class BoundedDecoder:
    """Decodes one coded stream piece by piece, up to `limit` bytes in all."""

    def __init__(self, coding: str, limit: int) -> None:
        if coding not in _DECODERS:
            raise UnsupportedEncoding(f"content coding {coding!r} is not supported")
        self._decoder = _DECODERS[coding]()
        self._room = limit
        self._limit = limit

    def feed(self, data: bytes) -> bytes:
        """Raises BodyTooLarge past the limit, BadBody on what is not in this coding."""
        out: list[bytes] = []
        try:
            for start in range(0, len(data), _STEP):
                out += self._decoded(data[start : start + _STEP])
        except _BROKEN:
            raise InvalidBody("the body is not in the content coding that it names") from None
        return b"".join(out)

    def _decoded(self, data: bytes) -> Iterator[bytes]:
        piece = self._decoder.feed(data, _STEP)
        while piece or self._decoder.more:
            self._room -= len(piece)
            if self._room < 0:
                raise BodyTooLarge(self._limit)
            yield piece
            piece = self._decoder.feed(b"", _STEP)


def decode(body: bytes, header: str, limit: int) -> bytes:
    """A whole body as text of its media type; raises as `Inflater.feed`, and UnsupportedEncoding."""
    for coding in reversed(codings(header)):
        body = BoundedDecoder(coding, limit).feed(body)
    return body


def is_known(coding: str) -> bool:
    """It can be read."""
    return coding in _DECODERS
