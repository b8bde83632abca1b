"""Our costs beside a provider's bill: the differences, and why they are likely."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date, timedelta

from msgspec import Struct

_ROUNDING = 0.01  # of the larger amount
_LATE_DAYS = 2  # providers bill a day or two later


class OurCost(Struct, frozen=True):
    """What we have recorded of a model on a day. `unpriced` and `estimated` count token usages."""

    day: date
    item: str
    micros: int
    unpriced: int = 0
    estimated: int = 0


class BillItem(Struct, frozen=True):
    """`item` is the model, or what the bill says of something that is no model's tokens."""

    day: date
    item: str
    micros: int


class Difference(Struct, frozen=True):
    day: date
    item: str
    ours: int
    theirs: int
    why: str = ""

    @property
    def micros(self) -> int:
        return self.theirs - self.ours


def compare(ours: Iterable[OurCost], theirs: Iterable[BillItem], today: date) -> list[Difference]:
    """Returns a line for each day and model, in their order.

    >>> day = date(2026, 11, 1)
    >>> items = [BillItem(day, "m", 60), BillItem(day, "m", 40)]
    >>> compare([OurCost(day, "m", 90)], items, date(2026, 11, 20))[0].micros
    10
    """
    known = {(each.day, each.item): each for each in ours}
    billed: dict[tuple[date, str], int] = {}
    for amount in theirs:
        key = (amount.day, amount.item)
        billed[key] = billed.get(key, 0) + amount.micros
    return [
        _difference(known.get(key, OurCost(*key, 0)), billed.get(key, 0), today)
        for key in sorted({*known, *billed})
    ]


def _difference(ours: OurCost, theirs: int, today: date) -> Difference:
    is_same = abs(theirs - ours.micros) <= _ROUNDING * max(theirs, ours.micros)
    why = "" if is_same else "; ".join(_reasons(ours, theirs, today))
    return Difference(ours.day, ours.item, ours.micros, theirs, why)


def _reasons(ours: OurCost, theirs: int, today: date) -> Iterator[str]:
    """Yields what may explain a difference, the most certain first."""
    if ours.unpriced:
        yield f"{ours.unpriced} unpriced here"
    if ours.estimated:
        yield f"{ours.estimated} estimated here"
    if not theirs:
        is_late = today - ours.day <= timedelta(days=_LATE_DAYS)
        yield "not billed yet" if is_late else "not on this bill: another account, or another name"
    elif not ours.micros and not ours.unpriced:
        yield "not seen here: fees that the bill sets apart, or use without the bridge"
    elif not ours.unpriced and not ours.estimated:
        is_more = theirs > ours.micros
        yield "use without the bridge" if is_more else "a discount (price_factor), or an old price here"
