"""Detects whether the process runs on gevent or on threads."""

from __future__ import annotations

import _socket
import os
import sys
from contextlib import AbstractContextManager, closing
from typing import Any


def under_gevent() -> bool:
    """Whether the process is monkey-patched."""
    monkey = sys.modules.get("gevent.monkey")
    return bool(monkey and monkey.is_module_patched("socket"))


def unpatched(module: str, name: str) -> Any:
    """Returns an object of the standard library as it is without gevent's patches."""
    if under_gevent():
        from gevent.monkey import get_original

        return get_original(module, name)
    return getattr(sys.modules[module], name)


def plain_duplicate(sock: Any) -> AbstractContextManager[_socket.socket]:
    """Returns a socket on a duplicate of the descriptor, which is closed at the end of a `with` statement.

    It has neither gevent's patches nor TLS. Raises OSError, ValueError.
    """
    return closing(_socket.socket(fileno=os.dup(sock.fileno())))
