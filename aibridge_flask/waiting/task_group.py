"""Work that goes on beside the one who waits for it."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Generic, TypeVar

from .client import UNWATCHED, Client, watch
from .threads import one_shot_event

T = TypeVar("T")
_AT_ONCE = 16
_LOOK = 0.5


class TaskGroup(Generic[T]):
    """Works that run from the beginning on, in threads or greenlets. Each is given a Client, which leaves
    at `stop`; each gives a value, or what it raised."""

    def __init__(self, *works: Callable[[Client], T]) -> None:
        self._left, self._count = deque(enumerate(works)), len(works)
        self._given: dict[int, T] = {}
        self._raised: dict[int, BaseException] = {}
        self._all = one_shot_event()
        self._ends: list[socket.socket] = []
        for _ in range(min(self._count, _AT_ONCE)):
            ours, theirs = socket.socketpair()
            self._ends.append(theirs)
            threading.Thread(target=self._run, args=(ours,), daemon=True).start()

    def wait(self, client: Client, seconds: float) -> bool:
        """Whether all have ended, after `seconds` at most. Raises ClientGone."""
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0:
            client.check()
            if client.wait_for(lambda left=left: self._all.wait(min(left, _LOOK))):  # type: ignore[misc]
                return True
        return False

    def results(self) -> list[T]:
        """Of all, in their order. Raises what the first of those that failed has raised."""
        for place in sorted(self._raised):
            raise self._raised[place]
        return [self._given[place] for place in sorted(self._given)]

    def stop(self) -> None:
        """Nobody waits any more; may be called again."""
        self._left.clear()
        while self._ends:
            self._ends.pop().close()

    def _run(self, ours: socket.socket) -> None:
        client = watch(ours)
        try:
            while self._left:
                self._next(client)
        finally:
            client.close()
            ours.close()

    def _next(self, client: Client) -> None:
        try:
            place, work = self._left.popleft()
        except IndexError:
            return
        try:
            self._given[place] = work(client)
        except BaseException as error:  # noqa: BLE001 - told to who asks for the results
            self._raised[place] = error
        if len(self._given) + len(self._raised) == self._count:
            self._all.open()


class ReplaceableClient:
    """A client in the place of which another one can be put."""

    def __init__(self) -> None:
        self.client: Client = UNWATCHED

    def check(self) -> None:
        self.client.check()

    def wait_for(self, call: Callable[[], T]) -> T:
        return self.client.wait_for(call)

    def send(self, upstream: socket.socket, data: bytes, timeout: float) -> None:
        self.client.send(upstream, data, timeout)

    def recv(self, upstream: socket.socket, size: int, timeout: float, drained: bool = False) -> bytes:
        return self.client.recv(upstream, size, timeout, drained)

    def close(self) -> None:
        self.client.close()
