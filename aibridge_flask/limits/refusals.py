"""The words and the kind of a refusal. docs/limits.md says what each client makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from math import ceil

from ..errors import (
    LimitError,
    LimitReached,
    ModelForbidden,
    ModelNotAllowed,
    ModelNotBilled,
    TooManyRequests,
)
from . import period
from .claims import Charge

PARALLEL_SECONDS = 3
"""After which a client asks again while others' requests run."""
_RATE_SECONDS = 60
_MAX_NAMED = 20

# By (client, API), as seen with Claude Code 2.1.332 and Codex of November 2026; the first that fits.
_NOT_ALLOWED: tuple[tuple[str, str, type[ModelNotAllowed]], ...] = (
    ("Claude Code", "messages", ModelNotBilled),
    ("", "messages", ModelForbidden),
    ("", "", ModelNotAllowed),
)


def limit_reached(charge: Charge, now: int, seconds: int, contact: str) -> LimitError:
    """Returns the error of a limit without room, which has room again after `seconds`; 0: never by itself."""
    limit, settings = charge.limit, charge.limit.settings
    words = f'limit "{limit.name}" is used up ({_amount(charge)})'
    if settings.unit == "parallel" or (settings.per in period.STEPS and seconds <= _RATE_SECONDS):
        message = f"{words}: try again in {_duration(seconds)}{_ask(contact)}"
        return TooManyRequests(message, limit.id, seconds)
    if not seconds:
        return LimitReached(f"{words}: it does not reset{_ask(contact)}", limit.id)
    resets_at = now + seconds
    when = datetime.fromtimestamp(resets_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    message = f"{words}: it resets in {_duration(seconds)}, at {when}{_ask(contact)}"
    return LimitReached(message, limit.id, resets_at, seconds)


def seconds_to_reset(charge: Charge, now: int) -> int:
    """Returns when a limit by fixed periods has room again, 0 if never by itself."""
    if charge.limit.settings.unit == "parallel":
        return PARALLEL_SECONDS
    end = period.end(charge.limit.settings.per, now)
    return max(1, end - now) if end else 0


def seconds_to_room(charge: Charge, steps: Sequence[tuple[int, int]], now: int) -> int:
    """Returns when enough of a sliding period has passed. `steps` are buckets with what was used in each."""
    used = sum(amount for _, amount in steps)
    for bucket, amount in steps:
        used -= amount
        if used + charge.held <= charge.limit.settings.amount or not used:
            return max(1, period.leaves(charge.limit.settings.per, bucket) - now)
    return seconds_to_reset(charge, now)


def model_not_allowed(model: str, allowed: Sequence[str], client: str, api: str, contact: str) -> LimitError:
    """Returns the error for a model that a rule does not allow."""
    shown = ", ".join(allowed[:_MAX_NAMED]) + (", ..." if len(allowed) > _MAX_NAMED else "")
    message = f'the model "{model}" is not allowed here: use one of {shown}{_ask(contact)}'
    return _not_allowed(client, api)(message)


def model_without_price(model: str, client: str, api: str, contact: str) -> LimitError:
    """Returns the error for a model that has a limit in US$ and no price."""
    return _not_allowed(client, api)(f'the model "{model}" has a limit in US$, and no price{_ask(contact)}')


def _not_allowed(client: str, api: str) -> type[ModelNotAllowed]:
    return next(
        error
        for its_client, its_api, error in _NOT_ALLOWED
        if its_client in ("", client) and its_api in ("", api)
    )


def _amount(charge: Charge) -> str:
    settings = charge.limit.settings
    if settings.unit == "usd":
        amount = f"US${settings.amount / 1_000_000:,.2f}"
    else:
        unit = "requests at a time" if settings.unit == "parallel" else settings.unit
        amount = f"{settings.amount:,} {unit}"
    per = {"": "", "total": " in all", "day": " a day"}
    return amount + per.get(settings.per, f" {'an' if settings.per == 'hour' else 'a'} {settings.per}")


def _duration(seconds: int) -> str:
    """Returns a duration in the two largest units.

    >>> _duration(45), _duration(3 * 3600 + 20 * 60 + 5), _duration(200_000)
    ('45 s', '3 h 21 min', '2 d 8 h')
    """
    if seconds < period.MINUTE:
        return f"{seconds} s"
    if seconds < period.DAY:
        hours, minutes = divmod(ceil(seconds / 60), 60)
        return f"{hours} h {minutes} min" if hours else f"{minutes} min"
    days, hours = divmod(ceil(seconds / period.HOUR), 24)
    return f"{days} d {hours} h"


def _ask(contact: str) -> str:
    return f"; ask {contact}" if contact else ""
