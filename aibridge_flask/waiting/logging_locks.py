"""The locks of logging, which real threads share with greenlets under gevent.

gevent's own lose the wake-up between threads when a line is logged in both at once: the thread or the request
would wait for ever.
"""

from __future__ import annotations

import logging
from typing import Any

from .runtime import under_gevent, unpatched


def use_real_locks() -> None:
    """Gives logging and its handlers real locks: they belong to a thread, and greenlets share it."""
    if not under_gevent():
        return
    new_lock = unpatched("_thread", "RLock")
    logging._lock = _real(logging._lock, new_lock)  # type: ignore[attr-defined]  # noqa: SLF001
    for handler in filter(None, (reference() for reference in logging._handlerList)):  # type: ignore[attr-defined]  # noqa: SLF001
        if handler.lock:
            handler.lock = _real(handler.lock, new_lock)


def _real(lock: Any, new_lock: Any) -> Any:
    if isinstance(lock, new_lock):
        return lock
    with lock:  # nobody is just writing
        return new_lock()
