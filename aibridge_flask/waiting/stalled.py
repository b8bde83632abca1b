"""Clients that read nothing for a while: a write to them would wait for ever, and hold an upstream."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import termios
from time import monotonic
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from .periodic import Periodic
from .runtime import plain_duplicate

_CHECKS = 4  # within the time that a client may take
_MAX_SECONDS = 15.0  # between checks


class Writing(Protocol):
    """A response that is written. `written` counts its pieces; `is_writing`: the server has one of them."""

    client_socket: Any
    written: int
    is_writing: bool


class StalledClients:
    """Shuts the connection of each watched response whose client has taken no byte for `seconds`.

    The server's write then fails as if the client had disconnected.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._watched: WeakKeyDictionary[Writing, tuple[tuple[int, int], float]] = WeakKeyDictionary()
        self._checks = Periodic(min(seconds / _CHECKS, _MAX_SECONDS), self._check)

    def watch(self, response: Writing) -> None:
        """Watches a response as long as it exists."""
        if response.client_socket is not None:
            self._watched[response] = (-1, 0), monotonic()
            self._checks.start()

    def close(self) -> None:
        self._checks.close()

    def _check(self) -> bool:
        now = monotonic()
        for response, (progress, since) in [*self._watched.items()]:
            new = (response.written, _unsent_bytes(response.client_socket))
            if not response.is_writing or new != progress:
                self._watched[response] = new, now
            elif now - since >= self._seconds:
                _shut(response.client_socket)
        return bool(self._watched)


def _unsent_bytes(client: Any) -> int:
    """Returns how much the system still holds for the client: less with each byte that it takes."""
    size = bytearray(4)
    with contextlib.suppress(OSError, ValueError):
        fcntl.ioctl(client.fileno(), termios.TIOCOUTQ, size)
    return int(struct.unpack("i", size)[0])


def _shut(client: Any) -> None:
    """The server's own write then fails. gevent's `shutdown` would interrupt it with an error of gevent's."""
    with contextlib.suppress(OSError, ValueError), plain_duplicate(client) as plain:
        plain.shutdown(socket.SHUT_RDWR)
