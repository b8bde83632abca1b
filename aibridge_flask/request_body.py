"""Reads the body of a request from the WSGI server: once, in memory once, and not for ever."""

from __future__ import annotations

import contextlib
import socket
from io import BytesIO
from typing import Any

from msgspec import Struct

from .errors import BodyTooLarge, InvalidBody, RequestTimeout
from .waiting import let_others_run

_SLICE_BYTES = 1 << 18
_TRUNCATED = "the request body is shorter than announced"


class BodyLimits(Struct, frozen=True):
    """`timeout` is in seconds without a byte."""

    max_bytes: int
    timeout: float


def read(source: Any, announced: int, client_socket: Any, limits: BodyLimits) -> bytes:
    """Returns the body that `source` holds, a WSGI input.

    `announced` is the length that the request's head gives; 0: up to the input's end. Raises BodyTooLarge,
    RequestTimeout, and InvalidBody if the body is shorter than announced.
    """
    if announced > limits.max_bytes:
        raise BodyTooLarge(limits.max_bytes)
    try:
        body = _read_in_time(source, announced, client_socket, limits)
    except TimeoutError:
        raise RequestTimeout from None
    except Exception:  # noqa: BLE001 - each server raises errors of its own
        raise InvalidBody(_TRUNCATED) from None
    if len(body) > limits.max_bytes:
        raise BodyTooLarge(limits.max_bytes)
    if len(body) < announced:
        raise InvalidBody(_TRUNCATED)
    return body


def _read_in_time(source: Any, announced: int, client_socket: Any, limits: BodyLimits) -> bytes:
    """Limits each wait for the client. Nothing more of a body that has stopped is read, by nobody."""
    if client_socket is None:
        return _read_slices(source, announced, limits.max_bytes)
    before = client_socket.gettimeout()
    client_socket.settimeout(limits.timeout)
    try:
        return _read_slices(source, announced, limits.max_bytes)
    except TimeoutError:
        with contextlib.suppress(OSError):
            client_socket.shutdown(socket.SHUT_RD)
        raise
    finally:
        client_socket.settimeout(before)


def _read_slices(source: Any, announced: int, limit: int) -> bytes:
    """Reads as much as is announced, or up to a byte more than the limit, into memory of that size.

    What a BytesIO is made with, and what is gathered in it, is not copied.
    """
    size = announced or limit + 1
    piece: bytes = source.read(min(size, _SLICE_BYTES))
    if len(piece) == size:
        return piece
    whole = BytesIO(bytes(announced))
    while piece:
        whole.write(piece)
        let_others_run()
        piece = source.read(min(size - whole.tell(), _SLICE_BYTES))
    whole.truncate()
    return whole.getvalue()
