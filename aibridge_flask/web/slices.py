"""Large pages are written in slices, so that a client that stops reading is noticed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import IO, Any

from flask import Response, request

from ..waiting import StalledClients

_SLICE_BYTES = 1 << 16


class Slices:
    """The bytes of a page, for the server and for `StalledClients`."""

    def __init__(self, data: bytes, client_socket: Any) -> None:
        self._data, self._position = memoryview(data), 0
        self.client_socket = client_socket
        self.written, self.is_writing = 0, False

    def __iter__(self) -> Slices:
        return self

    def __next__(self) -> bytes:
        start = self._position
        self.is_writing = start < len(self._data)
        if not self.is_writing:
            raise StopIteration
        self._position, self.written = start + _SLICE_BYTES, self.written + 1
        return bytes(self._data[start : self._position])


def slice_large_pages(stalled: StalledClients) -> Callable[[Response], Response]:
    """Returns an `after_request` function."""

    def slice_if_large(response: Response) -> Response:
        if response.is_sequence and (response.content_length or 0) > _SLICE_BYTES:
            slices = Slices(response.get_data(), request.environ.get("gunicorn.socket"))
            stalled.watch(slices)
            response.response = slices
        return response

    return slice_if_large


class Stream:
    """A response of unknown length, for the server and for `StalledClients`."""

    def __init__(
        self, next_piece: Callable[[], bytes], close: Callable[[], None], client_socket: Any
    ) -> None:
        """`next_piece` returns b"" at the end; `close` is called once, at the end or when the client has
        gone."""
        self._next_piece, self._close = next_piece, close
        self.client_socket = client_socket
        self.written, self.is_writing = 0, False

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> bytes:
        self.is_writing = False
        piece = self._next_piece()
        if not piece:
            self.close()
            raise StopIteration
        self.is_writing, self.written = True, self.written + 1
        return piece

    def close(self) -> None:
        close, self._close = self._close, lambda: None
        close()


def stream_response(
    stalled: StalledClients, media_type: str, next_piece: Callable[[], bytes], close: Callable[[], None]
) -> Response:
    """Returns the response of a stream. To a HEAD, whose body nobody asks for, it is closed at once."""
    stream = Stream(next_piece, close, request.environ.get("gunicorn.socket"))
    if request.method == "HEAD":
        stream.close()
        return Response(content_type=media_type)
    stalled.watch(stream)
    return Response(stream, content_type=media_type, direct_passthrough=True)


def slices_of(pieces: Iterator[bytes]) -> Generator[bytes, None, None]:
    """Yields the bytes of pieces of any size, in slices that are not empty."""
    for piece in pieces:
        for start in range(0, len(piece), _SLICE_BYTES):
            yield piece[start : start + _SLICE_BYTES]


def file_response(stalled: StalledClients, media_type: str, file: IO[bytes]) -> Response:
    """Returns the response with a file, which is then closed."""
    return stream_response(stalled, media_type, lambda: file.read(_SLICE_BYTES), file.close)
