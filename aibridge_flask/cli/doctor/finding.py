"""What a check has found."""

from __future__ import annotations

from typing import NamedTuple

OK, WARN, FAIL = "ok", "warn", "fail"


class Finding(NamedTuple):
    """`detail` says what is, and why it matters where it is wrong; `advice` says what to do, or is empty."""

    check: str
    status: str
    detail: str
    advice: str = ""
