"""Copies large bytes in steps, between which other threads run: memory is slow at its first touch."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

LARGE_BYTES = 4 << 20
"""What is smaller is copied, looked through or decoded at once within some milliseconds."""

STEP_BYTES = 1 << 20


def join(parts: Sequence[bytes | memoryview]) -> bytes:
    """Returns the parts in one."""
    size = sum(map(len, parts))
    if size <= LARGE_BYTES:
        return b"".join(parts)
    whole = BytesIO(bytes(size))  # neither this nor what is written is copied
    for part in parts:
        for start in range(0, len(part), STEP_BYTES):
            whole.write(memoryview(part)[start : start + STEP_BYTES])
    return whole.getvalue()


def cut(data: bytes, start: int, end: int) -> bytes:
    """Returns `data[start:end]`: `data` itself if that is all of it.

    >>> cut(b"abcd", 1, 3)
    b'bc'
    """
    if end - start <= LARGE_BYTES or end - start == len(data):
        return data[start:end]
    return join((memoryview(data)[start:end],))
