"""The keys of what is summed: digests, so that a row is found by one number."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b

_RECENT = 1024


@lru_cache(_RECENT)
def session_key(initiator_id: str, session_id: str) -> int:
    """Returns the key of an actor's session, of 63 bits.

    >>> session_key("ann", "s") == session_key("ann", "s") != session_key("anns", "")
    True
    """
    return _number(initiator_id, session_id)


@lru_cache(_RECENT)
def usage_id(hour: datetime, *names: str) -> int:
    """Returns the key of a row of sums by the hour; `names` are its other keys, in the table's order."""
    return _number(hour.astimezone(UTC).strftime("%Y%m%d%H"), *names)


@lru_cache(_RECENT)
def day_id(day: datetime, *names: str) -> int:
    """Returns the key of a row of sums by the day; `names` are its other keys, in the table's order."""
    return _number(day.astimezone(UTC).strftime("%Y%m%d"), *names)


@lru_cache(maxsize=4096)
def account_key(limit_name: str, subject: str) -> int:
    """Returns the key of what a limit counts together."""
    return _number(limit_name, subject)


def group_set(groups: Iterable[str]) -> str:
    """Returns the id of an actor's groups, "" if it has none."""
    names = sorted(set(groups))
    return blake2b(_joined(names), digest_size=8).hexdigest() if names else ""


def _number(*parts: str) -> int:
    return int.from_bytes(blake2b(_joined(parts), digest_size=8).digest()) >> 1


def _joined(parts: Iterable[str]) -> bytes:
    """Databases accept no NUL, so no part holds one."""
    return "\0".join(parts).encode("utf-8", "replace")
