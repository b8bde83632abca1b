"""The prices of the settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction

from ..config.settings import Price


class OwnPrices:
    """Finds prices by the names of models; a name that ends in `*` stands for all that begin like it."""

    def __init__(self, prices: Mapping[str, Price]) -> None:
        self._exact = prices
        patterns = [(name[:-1], price) for name, price in prices.items() if name.endswith("*")]
        self._patterns = sorted(patterns, key=lambda pattern: len(pattern[0]), reverse=True)

    def find(self, names: Iterable[str]) -> tuple[Price, ...]:
        """Returns the price of the first name that has one, or (). The longest match counts."""
        for name in names:
            if name in self._exact:
                return (self._exact[name],)
            for start, price in self._patterns:
                if name.startswith(start):
                    return (price,)
        return ()


def token_prices(price: Price) -> dict[str, Fraction]:
    """Returns the price of each kind of token, in US$ per million."""
    input, output = exact(price.input), exact(price.output)
    return {
        "input": input,
        "input_audio": input,
        "input_image": input,
        "cache_read": exact(price.cache_read),
        "cache_write": exact(price.cache_write),
        "cache_write_1h": exact(price.cache_write_1h),
        "output": output,
        "output_audio": output,
        "output_image": output,
        "output_reasoning": output,
    }


def own_fees(price: Price) -> dict[str, Fraction]:
    """Returns the fees that are set, in micro-dollars per use."""
    return {"web_search": exact(price.web_search[0]) * 1000} if price.web_search else {}


def exact(number: float) -> Fraction:
    """Returns the number as it is written: 0.1 is a tenth.

    >>> exact(0.1)
    Fraction(1, 10)
    """
    return Fraction(repr(number))
