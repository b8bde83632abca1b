"""The cost of an interception.

Prices come from the settings, else from the library genai-prices, which collects them from the providers'
pages. The cost of an unknown model is unknown.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache

from ..config.settings import Price
from ..model import Usage

UNKNOWN = -1
# Input tokens up to which every model has a flat price; the lowest threshold of long context is 128,000.
_FLAT_PRICE_TOKENS = 100_000
_PROBE_TOKENS = 1000


def load() -> None:
    """Imports the library in advance: it takes 14 MB and a sixth of a second."""
    import genai_prices  # noqa: F401


def cost_micros(usage: Usage, models: tuple[str, ...], prices: Mapping[str, Price]) -> int:
    """Returns the cost in micro-dollars (US$ 1e-6), or UNKNOWN.

    The first of `models` with a price counts: the model that served, then the one asked for.
    """
    for model in models:
        if model in prices:
            return _apply(usage, prices[model])
    for model in models:
        cost = _library_cost(usage, model)
        if cost != UNKNOWN:
            return cost
    return UNKNOWN


def _apply(usage: Usage, price: Price) -> int:
    return round(
        usage.input_tokens * price.input
        + usage.output_tokens * price.output
        + usage.cache_read_input_tokens * price.cache_read
        + usage.cache_write_input_tokens * price.cache_write
    )


def _library_cost(usage: Usage, model: str) -> int:
    """Asks the library, which takes 100 us a call. Flat prices are cached for an hour: some depend on the
    time of day.
    """
    input_tokens = usage.input_tokens + usage.cache_read_input_tokens + usage.cache_write_input_tokens
    if not model:
        return UNKNOWN
    if input_tokens > _FLAT_PRICE_TOKENS:
        return _calculate(usage, model)
    prices = _flat_price(model, int(time.time() // 3600))
    return _apply(usage, prices[0]) if prices else UNKNOWN


@lru_cache(maxsize=1024)
def _flat_price(model: str, hour: int) -> tuple[Price, ...]:
    """Returns the price per token of small requests, or ()."""
    probes = (
        Usage(input_tokens=_PROBE_TOKENS),
        Usage(output_tokens=_PROBE_TOKENS),
        Usage(cache_read_input_tokens=_PROBE_TOKENS),
        Usage(cache_write_input_tokens=_PROBE_TOKENS),
    )
    costs = [_calculate(probe, model) for probe in probes]
    return () if UNKNOWN in costs else (Price(*(cost / _PROBE_TOKENS for cost in costs)),)


def _calculate(usage: Usage, model: str) -> int:
    from genai_prices import Usage as LibraryUsage  # slow to import
    from genai_prices import calc_price

    read, written = usage.cache_read_input_tokens, usage.cache_write_input_tokens
    library_usage = LibraryUsage(
        input_tokens=usage.input_tokens + read + written,
        output_tokens=usage.output_tokens,
        cache_read_tokens=read,
        cache_write_tokens=written,
    )
    try:
        return round(calc_price(library_usage, model).total_price * 1_000_000)
    except LookupError:
        return UNKNOWN
