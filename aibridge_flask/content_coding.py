"""Content codings (RFC 9110 8.4): bodies are decoded for reading only, up to a limit."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Protocol

import brotli
import zstandard

from .errors import AbsurdRatio, BodyTooLarge, InvalidBody, UnsupportedEncoding

_CHUNK_BYTES = 1 << 16
_FREE_BYTES, _MAX_RATIO = 1 << 20, 200  # a decoded body above the first is as many times the coded one
_MAX_CODINGS = 4  # nobody uses more than one, and each costs a pass over the whole body
_MAX_MEMBERS = 10_000  # a body of empty members alone would take hours


class _Decoder(Protocol):
    """`feed` returns about `max_bytes` at most. `has_more`: it can return more without further input."""

    def feed(self, data: bytes, max_bytes: int) -> bytes: ...
    @property
    def has_more(self) -> bool: ...


def _count_members() -> Iterator[None]:
    """Advance once per further member or frame of a body. Raises EOFError after too many."""
    yield from repeat(None, _MAX_MEMBERS)
    raise EOFError


class _Zlib:
    def __init__(self, bits: int) -> None:
        self._bits, self._inflater = bits, zlib.decompressobj(bits)
        self._members = _count_members()

    def feed(self, data: bytes, max_bytes: int) -> bytes:
        data = self._remainder + data
        if self._inflater.eof and data:
            next(self._members)
            self._inflater = zlib.decompressobj(self._bits)
        return self._inflater.decompress(data, max_bytes)

    @property
    def has_more(self) -> bool:
        return bool(self._remainder)

    @property
    def _remainder(self) -> bytes:
        """At the end of a member, zlib leaves a stale `unconsumed_tail`."""
        return self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail


class _Deflate(_Zlib):
    """`deflate` means zlib by the RFC; some clients send raw deflate. The first two bytes tell."""

    def __init__(self) -> None:
        super().__init__(zlib.MAX_WBITS)
        self._start = b""

    def feed(self, data: bytes, max_bytes: int) -> bytes:
        if len(self._start) < 2:
            data = self._start + data
            self._start = data[:2]
            if len(data) < 2:
                return b""
            if not _is_zlib(data):
                self._bits = -zlib.MAX_WBITS
                self._inflater = zlib.decompressobj(self._bits)
        return super().feed(data, max_bytes)


def _is_zlib(data: bytes) -> bool:
    """Whether data begins with a header of zlib (RFC 1950 2.2).

    >>> _is_zlib(zlib.compress(b"x")), _is_zlib(zlib.compress(b"", wbits=-15))
    (True, False)
    """
    return data[0] & 0xF == 8 and int.from_bytes(data[:2]) % 31 == 0


class _Brotli:
    def __init__(self) -> None:
        self._inflater = brotli.Decompressor()

    def feed(self, data: bytes, max_bytes: int) -> bytes:
        return bytes(self._inflater.process(data, output_buffer_limit=max_bytes))

    @property
    def has_more(self) -> bool:
        return not self._inflater.can_accept_more_data()


class _Zstd:
    """Four bytes of zstd decode to 128 KB at most (RFC 8878 3.1.1.2): small input bounds the output."""

    INPUT_BYTES = 256

    def __init__(self) -> None:
        self._new_inflater = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj
        self._inflater = self._new_inflater()
        self._frames = _count_members()
        self._pending = memoryview(b"")

    def feed(self, data: bytes, max_bytes: int) -> bytes:
        if data:
            self._pending = memoryview(bytes(self._pending) + data)
        if self._inflater.eof and self._pending:
            next(self._frames)
            self._inflater = self._new_inflater()
        piece, self._pending = self._pending[: self.INPUT_BYTES], self._pending[self.INPUT_BYTES :]
        out = self._inflater.decompress(bytes(piece)) if piece else b""
        if self._inflater.eof and self._inflater.unused_data:
            self._pending = memoryview(self._inflater.unused_data + bytes(self._pending))
        return out

    @property
    def has_more(self) -> bool:
        return bool(self._pending)


_DECODERS: dict[str, Callable[[], _Decoder]] = {
    "gzip": lambda: _Zlib(zlib.MAX_WBITS | 16),
    "x-gzip": lambda: _Zlib(zlib.MAX_WBITS | 16),
    "deflate": _Deflate,
    "br": _Brotli,
    "zstd": _Zstd,
}
_DECODE_ERRORS = (zlib.error, brotli.error, zstandard.ZstdError, EOFError)


def codings(header: str) -> list[str]:
    """Returns the codings of a `Content-Encoding`, in the order in which they were applied.

    Too many codings are reported as one unknown coding.

    >>> codings("gzip, BR, identity"), codings("gzip," * 5)
    (['gzip', 'br'], ['too many'])
    """
    names = (name.strip().lower() for name in header.split(","))
    applied = [name for name in names if name and name != "identity"]
    return applied if len(applied) <= _MAX_CODINGS else ["too many"]


class BoundedDecoder:
    """Decodes one content coding piece by piece, up to `limit` bytes in total.

    The constructor raises UnsupportedEncoding.
    """

    def __init__(self, coding: str, limit: int) -> None:
        if coding not in _DECODERS:
            raise UnsupportedEncoding(f"content coding {coding!r} is not supported")
        self._decoder = _DECODERS[coding]()
        self._remaining = limit
        self._limit = limit

    def feed(self, data: bytes) -> bytes:
        """Returns the decoded bytes. Raises BodyTooLarge beyond the limit, InvalidBody on malformed data."""
        out: list[bytes] = []
        try:
            for start in range(0, len(data), _CHUNK_BYTES):
                out += self._decode(data[start : start + _CHUNK_BYTES])
        except _DECODE_ERRORS:
            raise InvalidBody("the body is not in the content coding that it names") from None
        return b"".join(out)

    def _decode(self, data: bytes) -> Iterator[bytes]:
        piece = self._decoder.feed(data, _CHUNK_BYTES)
        while piece or self._decoder.has_more:
            self._remaining -= len(piece)
            if self._remaining < 0:
                raise BodyTooLarge(self._limit)
            yield piece
            piece = self._decoder.feed(b"", _CHUNK_BYTES)


def decode(body: bytes, header: str, limit: int) -> bytes:
    """Returns the body without its content codings. `header` is the `Content-Encoding`, `limit` is in bytes.

    Raises UnsupportedEncoding, BodyTooLarge, AbsurdRatio, InvalidBody.
    """
    for coding in reversed(codings(header)):
        body = _decode_body(body, coding, limit)
    return body


def _decode_body(body: bytes, coding: str, limit: int) -> bytes:
    credible = max(_FREE_BYTES, len(body) * _MAX_RATIO)
    try:
        return BoundedDecoder(coding, min(limit, credible)).feed(body)
    except BodyTooLarge:
        raise BodyTooLarge(limit) if limit <= credible else AbsurdRatio from None


def is_supported(coding: str) -> bool:
    """Whether the coding can be decoded."""
    return coding in _DECODERS
