"""Large pages are written in slices, so that a client that stops reading is noticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
