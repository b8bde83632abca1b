"""Real threads under gevent too: starting one, waiting for one, leaving a slow call to one."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Protocol, TypeVar
from weakref import WeakKeyDictionary

from .runtime import under_gevent, unpatched

T = TypeVar("T")


class OneShotEvent(Protocol):
    """Opened once, by any thread; awaited once, by its maker."""

    def open(self) -> None: ...
    def wait(self, timeout: float) -> bool: ...


class _ThreadGate:
    def __init__(self) -> None:
        self._event = threading.Event()
        self.open, self.wait = self._event.set, self._event.wait


class _HubGate:
    """A real thread may not touch a greenlet: it rings the hub's bell."""

    def __init__(self) -> None:
        from gevent import get_hub

        self._hub = get_hub()
        self.bell = _bell(self._hub)
        self._opened = False
        self._waiter: Any = None

    def open(self) -> None:
        self.bell.ring([self])

    def answer(self) -> None:
        """Called in the hub."""
        self._opened = True
        if self._waiter is not None:
            self._waiter.switch(True)

    def wait(self, timeout: float) -> bool:
        from gevent.hub import Waiter

        if not self._opened:
            self._waiter, timer = Waiter(self._hub), self._hub.loop.timer(timeout)
            timer.start(self._waiter.switch, False)
            try:
                self._waiter.get()
            finally:
                self._waiter = None
                timer.stop()
                timer.close()
        return self._opened


class _HubCall:
    """A call that is made in the hub, whoever asks for it."""

    def __init__(self, call: Callable[[], None]) -> None:
        from gevent import get_hub

        self._bell, self.answer = _bell(get_hub()), call

    def __call__(self) -> None:
        self._bell.ring([self])


class _Bell:
    """Wakes a hub from other threads. One watcher for as long as the hub lives: libev's own way, and
    the only one that counts right with threads (`run_callback_threadsafe` does not)."""

    def __init__(self, hub: Any) -> None:
        self._opened: deque[_HubGate | _HubCall] = deque()
        self._watcher = hub.loop.async_()
        self._watcher.start(self._answer)

    def ring(self, gates: Sequence[_HubGate | _HubCall]) -> None:
        self._opened.extend(gates)
        self._watcher.send()

    def _answer(self) -> None:
        while self._opened:
            self._opened.popleft().answer()


_bells: WeakKeyDictionary[Any, _Bell] = WeakKeyDictionary()


def _bell(hub: Any) -> _Bell:
    if hub not in _bells:
        _bells[hub] = _Bell(hub)
    return _bells[hub]


def one_shot_event() -> OneShotEvent:
    """A gate for the calling thread or greenlet."""
    return _HubGate() if under_gevent() else _ThreadGate()


def set_events(gates: list[OneShotEvent]) -> None:
    """Opens the gates of one process, with one wake-up of the hub for all of them."""
    in_hub = [one for one in gates if isinstance(one, _HubGate)]
    if in_hub:
        in_hub[0].bell.ring(in_hub)
    for one in gates:
        if not isinstance(one, _HubGate):
            one.open()


def call_from_thread(call: Callable[[], None]) -> Callable[[], None]:
    """What any thread may call: `call` then runs where the greenlets of this one do. It may not wait."""
    return _HubCall(call) if under_gevent() else call


def call_soon(call: Callable[[], None]) -> None:
    """gevent alone: calls once the hub has run what is ready."""
    from gevent import get_hub

    get_hub().loop.run_callback(call)


def start_thread(run: Callable[[], None]) -> Callable[[float], bool]:
    """Runs `run` in a real thread, also under gevent; gives back a join that takes seconds."""
    done = unpatched("_thread", "allocate_lock")()
    done.acquire()

    def body() -> None:
        try:
            run()
        finally:
            done.release()

    unpatched("_thread", "start_new_thread")(body, ())
    return lambda timeout: bool(done.acquire(timeout=timeout))


def after_fork(of: T, begin_anew: Callable[[T], None]) -> None:
    """Threads stay behind in the other process: `begin_anew(of)` is called in a forked one, as long
    as `of` lives."""
    weakly = weakref.ref(of)

    def forked() -> None:
        living = weakly()
        if living is not None:
            begin_anew(living)

    os.register_at_fork(after_in_child=forked)


@cache
def fork_lock() -> Any:
    """A real lock; while a thread holds it the process does not fork. Locks that the thread has taken (of an
    import, of a library) would never be released in the child."""
    lock = unpatched("_thread", "allocate_lock")()
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    return lock


def run_in_pool(call: Callable[[], T]) -> T:
    """Runs a call that blocks its thread without stalling anybody else: under gevent in the
    hub's thread pool, else right here."""
    if not under_gevent():
        return call()
    from gevent import get_hub

    result: T = get_hub().threadpool.apply(call)
    return result
