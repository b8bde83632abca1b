"""Tasks that run in parallel to the caller, and the client that can be watched by one of them."""

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
_MAX_WORKERS = 16
_POLL_SECONDS = 0.5


class TaskGroup(Generic[T]):
    """Runs callables in threads or greenlets, starting at once.

    Each callable gets a Client that disconnects on `stop`. It returns a value or raises.
    """

    def __init__(self, *tasks: Callable[[Client], T]) -> None:
        self._waiting, self._count = deque(enumerate(tasks)), len(tasks)
        self._values: dict[int, T] = {}
        self._errors: dict[int, BaseException] = {}
        self._all_done = one_shot_event()
        self._stop_sockets: list[socket.socket] = []
        for _ in range(min(self._count, _MAX_WORKERS)):
            watched, kept = socket.socketpair()
            self._stop_sockets.append(kept)
            threading.Thread(target=self._run, args=(watched,), daemon=True).start()

    def wait(self, client: Client, seconds: float) -> bool:
        """Waits up to `seconds`; returns whether all tasks are done. Raises ClientDisconnected."""
        end = monotonic() + seconds
        while (remaining := end - monotonic()) > 0:
            client.check()
            timeout = min(remaining, _POLL_SECONDS)
            if client.wait_for(lambda timeout=timeout: self._all_done.wait(timeout)):  # type: ignore[misc]
                self.stop()  # nobody needs the sockets any more
                return True
        return False

    def results(self) -> list[T]:
        """Returns the values in the order of the tasks. Raises the error of the first task that failed."""
        for index in sorted(self._errors):
            raise self._errors.pop(index)  # an error holds this frame, and must not be held by it
        return [self._values[index] for index in sorted(self._values)]

    def stop(self) -> None:
        """Cancels tasks that have not started, and disconnects the clients of the others. May be repeated."""
        self._waiting.clear()
        while self._stop_sockets:
            self._stop_sockets.pop().close()

    def _run(self, watched: socket.socket) -> None:
        client = watch(watched)
        try:
            while self._waiting:
                self._run_next(client)
        finally:
            client.close()
            watched.close()

    def _run_next(self, client: Client) -> None:
        try:
            index, task = self._waiting.popleft()
        except IndexError:
            return
        try:
            self._values[index] = task(client)
        except BaseException as error:  # noqa: BLE001 - raised by `results`
            self._errors[index] = error
        if len(self._values) + len(self._errors) == self._count:
            self._all_done.set()


class ReplaceableClient:
    """A Client that delegates to `client`, which may be replaced at any time."""

    def __init__(self) -> None:
        self.client: Client = UNWATCHED

    def check(self) -> None:
        self.client.check()

    def wait_for(self, call: Callable[[], T]) -> T:
        return self.client.wait_for(call)

    def send(self, upstream: socket.socket, data: memoryview, timeout: float, heed: bool = True) -> int:
        return self.client.send(upstream, data, timeout, heed)

    def recv(self, upstream: socket.socket, size: int, timeout: float, drained: bool = False) -> bytes:
        return self.client.recv(upstream, size, timeout, drained)

    def close(self) -> None:
        self.client.close()
