"""Caches of values that come from clients: bounded in number and in bytes."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar

T = TypeVar("T")
_MAX_LENGTH = 256


def cached_if_short(maxsize: int) -> Callable[[Callable[[str], T]], Callable[[str], T]]:
    """Decorates a function of a text. Its values for long texts are computed each time.

    >>> cached_if_short(8)(str.upper)("a")
    'A'
    """

    def decorate(compute: Callable[[str], T]) -> Callable[[str], T]:
        cached = lru_cache(maxsize)(compute)

        @wraps(compute)
        def lookup(text: str) -> T:
            return cached(text) if len(text) <= _MAX_LENGTH else compute(text)

        return lookup

    return decorate
