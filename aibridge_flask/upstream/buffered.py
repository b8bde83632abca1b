"""A response whose body has been read in part, to decide whether it is the answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from math import inf

from .. import content_coding
from ..errors import BridgeError, UpstreamError
from ..headers import find
from ..protocols import UpstreamResponse

_MAX_BYTES = 1 << 16


class BufferedResponse:
    """Reads the first 64 KB of a body at once; `iter_body` yields the whole body nevertheless."""

    def __init__(self, response: UpstreamResponse) -> None:
        """Raises ClientDisconnected. That the upstream breaks off is left to `iter_body`."""
        self._response = response
        self.status, self.headers, self.close = response.status, response.headers, response.close
        self._rest: Iterator[bytes] = response.iter_body(inf)
        self._read: list[bytes] = []
        try:
            self._read_beginning()
        except UpstreamError as error:
            self._rest = _raising(error)

    def _read_beginning(self) -> None:
        size = 0
        for piece in self._rest:
            self._read.append(piece)
            size += len(piece)
            if size >= _MAX_BYTES:
                break

    @property
    def beginning(self) -> bytes:
        """What was read, without its content codings if these are known."""
        data = b"".join(self._read)
        with suppress(BridgeError):
            return content_coding.decode(data, find(self.headers, "content-encoding"), 16 * _MAX_BYTES)
        return data

    @property
    def complete(self) -> bool:
        return self._response.complete

    def iter_body(self, idle_interval: float) -> Iterator[bytes]:
        """Yields the body. `idle_interval` has no effect: what is buffered is no stream."""
        return chain(self._read, self._rest)


def _raising(error: UpstreamError) -> Iterator[bytes]:
    try:
        raise error
        yield b""
    finally:
        del error  # it holds this frame
