"""Tells how much of a limit is used: headers for the client, notices for the log and a webhook."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from math import floor
from typing import Any
from urllib.parse import quote

from msgspec import Struct

from ..records.events import now
from . import period
from .claims import Charge, Claim, Used
from .limit import SHADOW, Limit

Header = tuple[str, str]
HEADER = "X-AIBridge-Limit"
TOLD_FROM = 0.75
_LEVELS = (75, 95, 100)  # percent
_SECONDS = {"minute": period.MINUTE, "hour": period.HOUR}


class Notice(Struct, frozen=True):
    """So much of a limit is used, in the period that began at `start`."""

    limit: Limit
    subject: str
    account: int
    start: int
    percent: int
    used: int

    @property
    def key(self) -> tuple[int, int, int]:
        return self.account, self.start, self.percent

    def facts(self) -> dict[str, Any]:
        """Returns what the webhook gets; amounts are in the limit's unit, money in micro-dollars."""
        settings = self.limit.settings
        return {
            "event": "limit_used",
            "limit": self.limit.name,
            "of": self.subject,
            "percent": self.percent,
            "used": self.used,
            "amount": settings.amount,
            "unit": settings.unit,
            "per": settings.per,
            "mode": settings.mode,
        }

    def row(self) -> dict[str, Any]:
        keys = dict(zip(("account", "start", "percent"), self.key, strict=True))
        names = {"limit_name": self.limit.name, "subject": self.subject}
        return {**keys, **names, "facts": self.facts(), "made_at": now()}


def notices_of(charge: Charge, used: Used) -> Iterator[Notice]:
    """Yields the notices of an account, with this charge; of limits that neither slide nor are shadows."""
    settings = charge.limit.settings
    if not settings.per or settings.per in period.STEPS or settings.mode == SHADOW:
        return
    total = used.total + charge.held
    for percent in _LEVELS:
        if total * 100 >= settings.amount * percent:
            yield Notice(charge.limit, charge.subject, charge.account, charge.start, percent, total)


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
    return (*headers, (HEADER, _text(share, charge, now))) if share >= TOLD_FROM else headers


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
