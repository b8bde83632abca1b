"""What a request asks of the limits that it falls under, and the decision: pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from ..records.events import Hold
from . import period
from .limit import ENFORCE, Asked, Limit, matches


class Expected(Struct, frozen=True):
    """What an interception is expected to use. `micros` is 0 for a model without a price."""

    tokens: int = 0
    micros: int = 0


class Charge(Struct, frozen=True):
    """What a request is to hold of one limit. Buckets from `start` on count; its own is `bucket`."""

    limit: Limit
    subject: str
    account: int
    start: int
    bucket: int
    held: int


class Claim(Struct, frozen=True):
    """All charges of one interception, ordered by account."""

    id: str
    model: str
    charges: tuple[Charge, ...]

    @property
    def holds(self) -> tuple[Hold, ...]:
        return tuple(
            Hold(each.account, each.bucket, each.held, each.limit.name, each.subject) for each in self.charges
        )


NOTHING = Claim("", "", ())


class Used(Struct, frozen=True):
    """What was used of an account, in the limit's unit, without the request that asks."""

    spent: int = 0
    held: int = 0

    @property
    def total(self) -> int:
        return self.spent + self.held

    def plus(self, held: int) -> Used:
        return Used(self.spent, self.held + held)


Matching = Sequence[tuple[Limit, Sequence[str]]]
"""Limits that are about a request, each with what counts it there."""


def matching(limits: Sequence[Limit], asked: Asked) -> Matching:
    found = [(limit, limit.subjects(asked)) for limit in limits]
    return [(limit, subjects) for limit, subjects in found if subjects]


def claim(id: str, found: Matching, asked: Asked, expected: Expected) -> Claim:
    """Returns a request's claim on the limits that are about it."""
    charges = (each for limit, subjects in found for each in _charges(limit, subjects, asked.at, expected))
    return Claim(id, asked.model, tuple(sorted(charges, key=lambda charge: charge.account)))


def _charges(limit: Limit, subjects: Sequence[str], at: int, expected: Expected) -> Iterator[Charge]:
    per, unit = limit.settings.per, limit.settings.unit
    held = 1 if unit == "parallel" else limit.amount(1, expected.tokens, expected.micros)
    start, bucket = period.start(per, at), period.bucket(per, at)
    for subject in subjects:
        yield Charge(limit, subject, limit.account(subject), start, bucket, held)


def refused(claim: Claim, used: Mapping[int, Used]) -> tuple[Charge, ...]:
    """Returns the charges for which there is no room, whatever the limits' mode."""
    return tuple(each for each in claim.charges if not has_room(each, used[each.account], claim.model))


def has_room(charge: Charge, used: Used, model: str) -> bool:
    """Whether a charge fits. An unused limit lets one request through, since estimates may be wrong."""
    amount = charge.limit.settings.amount
    instead = charge.limit.settings.instead
    if instead and matches(instead, model):
        return True
    return used.total + charge.held <= amount or (amount > 0 and not used.total)


def is_enforced(charges: Sequence[Charge]) -> bool:
    return any(each.limit.settings.mode == ENFORCE for each in charges)
