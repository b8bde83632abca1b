"""How commands write money and names."""

from __future__ import annotations

_MAX_NAME = 40
_MICROS = 1_000_000


def dollars(micros: int) -> str:
    """
    >>> dollars(1_234_567_890), dollars(-5)
    ('1,234.567890', '-0.000005')
    """
    sign, amount = "-" if micros < 0 else "", abs(micros)
    return f"{sign}{amount // _MICROS:,}.{amount % _MICROS:06}"


def printable(name: str) -> str:
    """Returns a name of a model, which clients and upstreams choose, for a terminal."""
    return "".join(character if character.isprintable() else "?" for character in name)[:_MAX_NAME]
