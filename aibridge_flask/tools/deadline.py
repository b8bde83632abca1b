"""Clients whose waits end early: at a deadline over all waits, or when an interrupt is requested."""

from __future__ import annotations

import socket
from collections.abc import Callable
from time import monotonic
from typing import TypeVar

from ..errors import ClientDisconnected
from ..waiting import UNWATCHED, Client, pause

T = TypeVar("T")
_POLL_SECONDS = 0.5


class Deadline:
    """A Client whose waits take `seconds` in total, however slowly the bytes arrive."""

    def __init__(self, client: Client, seconds: float) -> None:
        self._client, self._end = client, monotonic() + seconds

    @property
    def is_over(self) -> bool:
        return monotonic() >= self._end

    def copy(self) -> Deadline:
        """Returns a deadline with the same end, which can be shortened separately."""
        return Deadline(self._client, self._end - monotonic())

    def shorten(self, seconds: float) -> None:
        """Moves the end to `seconds` from now, unless it is earlier."""
        self._end = min(self._end, monotonic() + seconds)

    def pause(self, seconds: float) -> None:
        """Waits `seconds`, or until the deadline. Raises ClientDisconnected."""
        pause(min(seconds, self._end - monotonic()), self._client)

    def check(self) -> None:
        self._client.check()

    def wait_for(self, call: Callable[[], T]) -> T:
        return self._client.wait_for(call)

    def send(self, upstream: socket.socket, data: memoryview, timeout: float, heed: bool = True) -> int:
        return self._client.send(upstream, data, self._remaining(timeout), heed)

    def recv(self, upstream: socket.socket, size: int, timeout: float, drained: bool = False) -> bytes:
        return self._client.recv(upstream, size, self._remaining(timeout), drained)

    def close(self) -> None:
        """Does not close the client, which belongs to the caller."""

    def _remaining(self, timeout: float) -> float:
        remaining = self._end - monotonic()
        if remaining <= 0:
            raise TimeoutError
        return min(remaining, timeout)


class InterruptibleClient:
    """A Client that disconnects when `is_interrupted` returns true."""

    def __init__(self, is_interrupted: Callable[[], bool]) -> None:
        self._is_interrupted = is_interrupted
        self.wait_for, self.send, self.close = UNWATCHED.wait_for, UNWATCHED.send, UNWATCHED.close

    def check(self) -> None:
        if self._is_interrupted():
            raise ClientDisconnected

    def recv(self, upstream: socket.socket, size: int, timeout: float, drained: bool = False) -> bytes:
        end = monotonic() + timeout
        while True:
            self.check()
            remaining = max(0.0, end - monotonic())
            try:
                return UNWATCHED.recv(upstream, size, min(remaining, _POLL_SECONDS))
            except TimeoutError:
                if not remaining:
                    raise
