"""Prices per token and per use, and what quantities cost by them. All arithmetic is on integers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from itertools import accumulate, pairwise
from math import lcm

from msgspec import Struct

from ..model import EMPTY
from .cost import UNPRICED, Cost
from .quantities import Quantities

_MAX_MICROS = 10**15  # a thousand million US$: the price is wrong
_OUTPUT = 1
_PARTS = {  # all other kinds are output
    "input": 0,
    "input_audio": 0,
    "input_image": 0,
    "cache_read": 2,
    "cache_write": 3,
    "cache_write_1h": 3,
}
_CACHED = ("cache_read", "cache_write", "cache_write_1h")
Prices = Mapping[str, Fraction]


class Rates(Struct, frozen=True):
    """Prices in micro-dollars times `scale`, so that they are whole numbers.

    `steps` are prices of tokens by kind, each with the input tokens above which it holds for the whole
    request, the highest first. `fees` are prices per use.
    """

    scale: int = 1
    steps: tuple[tuple[int, Mapping[str, int]], ...] = ()
    fees: Mapping[str, int] = EMPTY
    source: str = ""
    version: str = ""

    def cost_of(self, quantities: Quantities) -> Cost:
        """Returns UNPRICED if a kind of token has no price. Uses without a price cost nothing."""
        tokens = quantities.tokens
        prices = next((prices for start, prices in self.steps if quantities.input_tokens > start), EMPTY)
        if not prices or not tokens or any(count and kind not in prices for kind, count in tokens.items()):
            return UNPRICED
        fees = sum(count * self.fees.get(kind, 0) for kind, count in quantities.uses.items())
        micros, *parts = self._round_parts((*_amounts(tokens, prices), fees))
        saved = self._round(_saved(tokens, prices))
        is_possible = max(micros, abs(saved)) <= _MAX_MICROS
        return Cost(micros, self.source, self.version, saved, *parts) if is_possible else UNPRICED

    def _round_parts(self, amounts: Iterable[int]) -> list[int]:
        """Returns the sum, rounded once, and all parts but the first, so that together they are the sum."""
        rounded = [self._round(total) for total in accumulate(amounts)]
        return [rounded[-1], *(after - before for before, after in pairwise(rounded))]

    def _round(self, amount: int) -> int:
        """Rounds half up."""
        return (2 * amount + self.scale) // (2 * self.scale)


NO_RATES = Rates()


def _amounts(tokens: Mapping[str, int], prices: Mapping[str, int]) -> list[int]:
    """Returns what input, output, cached reads and cached writes cost."""
    amounts = [0, 0, 0, 0]
    for kind, count in tokens.items():
        if count:
            amounts[_PARTS.get(kind, _OUTPUT)] += count * prices[kind]
    return amounts


def _saved(tokens: Mapping[str, int], prices: Mapping[str, int]) -> int:
    """Returns what reads saved, less what writes cost above other input."""
    full = prices.get("input", 0)
    return sum(count * (full - prices[kind]) for kind in _CACHED if (count := tokens.get(kind, 0)))


def make_rates(steps: Mapping[int, Prices], fees: Prices, source: str, version: str = "") -> Rates:
    """Makes rates of prices in US$ per million tokens, which are micro-dollars per token, by the start of the
    step, and of fees in micro-dollars per use."""
    scale = lcm(*(price.denominator for prices in (*steps.values(), fees) for price in prices.values()))
    ordered = sorted(steps.items(), key=lambda step: step[0], reverse=True)
    whole = tuple((start, _whole(prices, scale)) for start, prices in ordered)
    return Rates(scale, whole, _whole(fees, scale), source, version)


def _whole(prices: Prices, scale: int) -> dict[str, int]:
    return {kind: price.numerator * (scale // price.denominator) for kind, price in prices.items()}
