"""Detects whether the process runs on gevent or on threads."""

from __future__ import annotations

import sys
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
