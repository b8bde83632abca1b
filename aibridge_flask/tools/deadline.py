"""Waits that end: at a deadline over all of them, or as soon as somebody is wanted elsewhere."""

from __future__ import annotations

import socket
from collections.abc import Callable
from time import monotonic
from typing import TypeVar

from ..errors import ClientDisconnected
from ..waiting import UNWATCHED, Client

T = TypeVar("T")
_LOOK = 0.5


class Deadline:
    """A Client whose waits last `seconds` all together, however the bytes drip."""

    def __init__(self, client: Client, seconds: float) -> None:
        self._client, self._end = client, monotonic() + seconds

    @property
    def over(self) -> bool:
        return monotonic() >= self._end

    def step(self) -> Deadline:
        """One of several waits with the same end, to be shortened by itself."""
        return Deadline(self._client, self._end - monotonic())

    def shorten(self, seconds: float) -> None:
        self._end = min(self._end, monotonic() + seconds)

    def check(self) -> None:
        self._client.check()

    def wait_for(self, call: Callable[[], T]) -> T:
        return self._client.wait_for(call)

    def send(self, upstream: socket.socket, data: bytes, timeout: float) -> None:
        self._client.send(upstream, data, self._left(timeout))

    def recv(self, upstream: socket.socket, size: int, timeout: float, drained: bool = False) -> bytes:
        return self._client.recv(upstream, size, self._left(timeout), drained)

    def close(self) -> None:
        """The client is watched on: it is not ours."""

    def _left(self, timeout: float) -> float:
        left = self._end - monotonic()
        if left <= 0:
            raise TimeoutError
        return min(left, timeout)


class InterruptibleClient:
    """A Client that leaves when it is `wanted` elsewhere."""

    def __init__(self, wanted: Callable[[], bool]) -> None:
        self._wanted = wanted
        self.wait_for, self.send, self.close = UNWATCHED.wait_for, UNWATCHED.send, UNWATCHED.close

    def check(self) -> None:
        if self._wanted():
            raise ClientDisconnected

    def recv(self, upstream: socket.socket, size: int, timeout: float, drained: bool = False) -> bytes:
        end = monotonic() + timeout
        while True:
            self.check()
            left = end - monotonic()
            if left <= 0:
                raise TimeoutError
            try:
                return UNWATCHED.recv(upstream, size, min(left, _LOOK))
            except TimeoutError:
                continue
