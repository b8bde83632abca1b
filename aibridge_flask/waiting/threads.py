"""Real threads, also under gevent: start one, wait for one, run a slow call in one."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Protocol, TypeVar
from weakref import WeakKeyDictionary

from .logging_locks import use_real_locks
from .runtime import under_gevent, unpatched

T = TypeVar("T")
_FORK_WAIT_SECONDS = 0.02


class OneShotEvent(Protocol):
    """Set once, by any thread; awaited once, by the thread or greenlet that created it."""

    def set(self) -> None: ...
    def wait(self, timeout: float) -> bool: ...


class _ThreadEvent:
    def __init__(self) -> None:
        self._event = threading.Event()
        self.set, self.wait = self._event.set, self._event.wait


class _HubEvent:
    """A real thread must not touch a greenlet: it wakes the hub, which switches to the waiting greenlet."""

    def __init__(self) -> None:
        from gevent import get_hub

        self._hub = get_hub()
        self.wakeup = _wakeup(self._hub)
        self._is_set = False
        self._waiter: Any = None

    def set(self) -> None:
        self.wakeup.wake([self])

    def run_in_hub(self) -> None:
        self._is_set = True
        if self._waiter is not None:
            self._waiter.switch(True)

    def wait(self, timeout: float) -> bool:
        from gevent.hub import Waiter

        if not self._is_set:
            self._waiter, timer = Waiter(self._hub), self._hub.loop.timer(timeout)
            timer.start(self._waiter.switch, False)
            try:
                self._waiter.get()
            finally:
                self._waiter = None
                timer.stop()
                timer.close()
        return self._is_set


class _HubCall:
    """A callable that runs in the hub, whichever thread calls it."""

    def __init__(self, call: Callable[[], None]) -> None:
        from gevent import get_hub

        self._wakeup, self.run_in_hub = _wakeup(get_hub()), call

    def __call__(self) -> None:
        self._wakeup.wake([self])


class _Wakeup:
    """Wakes a hub from other threads.

    It has one watcher for the life of the hub. This is libev's own way, and the only one whose reference
    counting is correct with threads (`run_callback_threadsafe` is not).
    """

    def __init__(self, hub: Any) -> None:
        self._ready: deque[_HubEvent | _HubCall] = deque()
        self._watcher = hub.loop.async_()
        self._watcher.start(self._run_ready)

    def wake(self, ready: Sequence[_HubEvent | _HubCall]) -> None:
        self._ready.extend(ready)
        self._watcher.send()

    def _run_ready(self) -> None:
        while self._ready:
            self._ready.popleft().run_in_hub()


_wakeups: WeakKeyDictionary[Any, _Wakeup] = WeakKeyDictionary()


def _wakeup(hub: Any) -> _Wakeup:
    if hub not in _wakeups:
        _wakeups[hub] = _Wakeup(hub)
    return _wakeups[hub]


def one_shot_event() -> OneShotEvent:
    """Returns an event for the calling thread or greenlet."""
    return _HubEvent() if under_gevent() else _ThreadEvent()


def set_events(events: list[OneShotEvent]) -> None:
    """Sets events of one process, and wakes its hub once for all of them."""
    hub_events = [event for event in events if isinstance(event, _HubEvent)]
    if hub_events:
        hub_events[0].wakeup.wake(hub_events)
    for event in events:
        if not isinstance(event, _HubEvent):
            event.set()


def call_from_thread(call: Callable[[], None]) -> Callable[[], None]:
    """Returns a callable for any thread. Under gevent `call` runs in the current hub, and must not block."""
    return _HubCall(call) if under_gevent() else call


def call_soon(call: Callable[[], None]) -> None:
    """Calls `call` once the hub has run everything that is ready. For gevent only."""
    from gevent import get_hub

    get_hub().loop.run_callback(call)


def start_thread(run: Callable[[], None]) -> Callable[[float], bool]:
    """Runs `run` in a real thread, also under gevent. Returns a `join` that takes a timeout in seconds."""
    use_real_locks()
    done = unpatched("_thread", "allocate_lock")()
    done.acquire()

    def body() -> None:
        try:
            run()
        finally:
            done.release()

    unpatched("_thread", "start_new_thread")(body, ())
    return lambda timeout: bool(done.acquire(timeout=timeout))


def after_fork(target: T, reset: Callable[[T], None]) -> None:
    """Calls `reset(target)` in forked processes while `target` lives: threads do not survive a fork."""
    reference = weakref.ref(target)

    def reset_if_alive() -> None:
        alive = reference()
        if alive is not None:
            reset(alive)

    os.register_at_fork(after_in_child=reset_if_alive)


@cache
def fork_lock() -> Any:
    """Returns a real lock. While a thread holds it, a fork waits, but only for a moment: it may be in the
    hub.

    Other locks that the thread holds, such as those of imports and libraries, would stay locked in the child.
    """
    lock = unpatched("_thread", "allocate_lock")()
    acquired: list[bool] = []

    def release() -> None:
        if acquired.pop():
            lock.release()

    def reset() -> None:
        """Whoever held it is not in the child."""
        acquired.clear()
        lock._at_fork_reinit()  # noqa: SLF001 - as the standard library does

    os.register_at_fork(
        before=lambda: acquired.append(lock.acquire(timeout=_FORK_WAIT_SECONDS)),
        after_in_parent=release,
        after_in_child=reset,
    )
    return lock


def run_in_pool(call: Callable[[], T]) -> T:
    """Runs a blocking call: under gevent in the hub's thread pool, else in the current thread."""
    if not under_gevent():
        return call()
    from gevent import get_hub

    use_real_locks()
    result: T = get_hub().threadpool.apply(call)
    return result
