"""Which of the two it is: gevent, or threads."""

from __future__ import annotations

import sys
from typing import Any


def under_gevent() -> bool:
    """The process is monkey-patched."""
    monkey = sys.modules.get("gevent.monkey")
    return bool(monkey and monkey.is_module_patched("socket"))


def unpatched(module: str, name: str) -> Any:
    """What gevent has put its own in place of."""
    if under_gevent():
        from gevent.monkey import get_original

        return get_original(module, name)
    return getattr(sys.modules[module], name)
