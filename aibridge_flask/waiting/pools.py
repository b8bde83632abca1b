"""Bounded thread pools for calls that block, one for each thing that may be slow, so that none starves
another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from .logging_locks import use_real_locks
from .runtime import under_gevent

T = TypeVar("T")
_LARGE_BYTES = 1 << 18  # what takes a millisecond or two
_PARSER_SECONDS = 600.0


class Pool:
    """Under gevent runs calls in threads of its own, else in the current thread."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._by_hub: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    def run(self, call: Callable[[], T], timeout: float) -> T:
        """Returns the call's value. Raises what it raises, and TimeoutError after `timeout` seconds.

        Under gevent the timeout includes the wait for a free thread; the call itself goes on. Without
        gevent the call must have a deadline of its own.
        """
        if not under_gevent():
            return call()
        from gevent import Timeout

        with Timeout(timeout, TimeoutError):
            values, errors = self._threads().spawn(_outcome, call).get()
        if errors:
            try:
                raise errors[0]
            finally:
                del errors  # an error holds this frame: it would hold the error, and both what the call held
        value: T = values[0]
        return value

    def _threads(self) -> Any:
        from gevent import get_hub
        from gevent.threadpool import ThreadPool

        hub = get_hub()
        if hub not in self._by_hub:
            use_real_locks()
            self._by_hub[hub] = ThreadPool(self._size, hub=hub)
        return self._by_hub[hub]


def _outcome(call: Callable[[], T]) -> tuple[tuple[T, ...], tuple[Exception, ...]]:
    """Returns the value or the error: one that is raised in the thread, gevent would print."""
    try:
        return (call(),), ()
    except Exception as error:  # noqa: BLE001 - raised again where it is waited for
        return (), (error,)


READERS = Pool(4)
TOKENS = Pool(2)
FILES = Pool(2)
OBJECTS = Pool(2)
PARSERS = Pool(2)


def run_if_large(size: float, call: Callable[[], T]) -> T:
    """Runs a call whose work grows with `size`, in bytes. While it handles much, other requests go on."""
    return call() if size <= _LARGE_BYTES else PARSERS.run(call, _PARSER_SECONDS)
