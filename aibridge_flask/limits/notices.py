"""Headers that tell a client how much of its limits is used."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from math import floor
from urllib.parse import quote

from . import period
from .claims import Charge, Claim, Used
from .limit import SHADOW

Header = tuple[str, str]
HEADER = "X-AIBridge-Limit"
_TOLD_FROM = 0.75
_SECONDS = {"minute": period.MINUTE, "hour": period.HOUR}


def notice_headers(claim: Claim, used: Sequence[Used], client: str, api: str, now: int) -> tuple[Header, ...]:
    """Returns the headers of an admitted request, about the fullest of its limits."""
    told = [
        (ratio(charge, each), charge)
        for charge, each in zip(claim.charges, used, strict=True)
        if charge.limit.settings.per and charge.limit.settings.mode != SHADOW
    ]
    if not told:
        return ()
    share, charge = max(told, key=lambda pair: pair[0])
    headers = _codex_headers(share, charge, now) if (client, api) == ("Codex", "responses") else ()
    return (*headers, (HEADER, _text(share, charge, now))) if share >= _TOLD_FROM else headers


def ratio(charge: Charge, used: Used) -> float:
    """Returns which share of a limit is used, with the request's own charge; at most 1.0."""
    amount = charge.limit.settings.amount
    return min(1.0, (used.total + charge.held) / amount) if amount else 1.0


def _text(share: float, charge: Charge, now: int) -> str:
    end = period.end(charge.limit.settings.per, now)
    resets = f";resets={datetime.fromtimestamp(end, UTC):%Y-%m-%dT%H:%M:%SZ}" if end else ""
    return f"name={quote(charge.limit.name)};used={floor(share * 100) / 100:.2f}{resets}"


def _codex_headers(share: float, charge: Charge, now: int) -> tuple[Header, ...]:
    """What Codex shows as `/status`."""
    end = period.end(charge.limit.settings.per, now)
    if not end:
        return ()
    per = charge.limit.settings.per
    seconds = _SECONDS.get(per) or end - period.start(per, now)
    return (
        ("x-codex-primary-used-percent", str(floor(share * 100))),
        ("x-codex-primary-window-minutes", str(seconds // 60)),
        ("x-codex-primary-reset-at", str(end)),
    )
