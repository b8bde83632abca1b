"""What an interception cost. Prices come from the settings, else from the library genai-prices,
whose tables are collected from the providers' own pages; an unknown model costs nothing known."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache

from ..config.settings import Price
from ..model import Usage

UNKNOWN = -1
# Below every threshold from which a model costs more per token (128,000 is the lowest).
_FLAT = 100_000
_PROBE = 1000


def load() -> None:
    """Loads the library, 14 MB and a sixth of a second, before the first cost is asked for."""
    import genai_prices  # noqa: F401


def cost_micros(usage: Usage, models: tuple[str, ...], prices: Mapping[str, Price]) -> int:
    """US$ 1e-6, or UNKNOWN. `models` are tried in turn: the one that served, the one asked for."""
    for model in models:
        if model in prices:
            return _sum(usage, prices[model])
    for model in models:
        found = _listed(usage, model)
        if found != UNKNOWN:
            return found
    return UNKNOWN


def _sum(usage: Usage, price: Price) -> int:
    return round(
        usage.input_tokens * price.input
        + usage.output_tokens * price.output
        + usage.cache_read_input_tokens * price.cache_read
        + usage.cache_write_input_tokens * price.cache_write
    )


def _listed(usage: Usage, model: str) -> int:
    """The library takes 100 us a call, so what holds for small requests is asked for once an
    hour (some prices hold for a time of the day)."""
    taken = usage.input_tokens + usage.cache_read_input_tokens + usage.cache_write_input_tokens
    if not model:
        return UNKNOWN
    if taken > _FLAT:
        return _ask(usage, model)
    rates = _rates(model, int(time.time() // 3600))
    return _sum(usage, rates[0]) if rates else UNKNOWN


@lru_cache(maxsize=1024)
def _rates(model: str, hour: int) -> tuple[Price, ...]:
    """The model's price, or nothing."""
    probes = (
        Usage(input_tokens=_PROBE),
        Usage(output_tokens=_PROBE),
        Usage(cache_read_input_tokens=_PROBE),
        Usage(cache_write_input_tokens=_PROBE),
    )
    costs = [_ask(probe, model) for probe in probes]
    return () if UNKNOWN in costs else (Price(*(cost / _PROBE for cost in costs)),)


def _ask(usage: Usage, model: str) -> int:
    from genai_prices import Usage as Told  # large tables: loaded with the first cost
    from genai_prices import calc_price

    read, written = usage.cache_read_input_tokens, usage.cache_write_input_tokens
    told = Told(
        input_tokens=usage.input_tokens + read + written,
        output_tokens=usage.output_tokens,
        cache_read_tokens=read,
        cache_write_tokens=written,
    )
    try:
        return round(calc_price(told, model).total_price * 1_000_000)
    except LookupError:
        return UNKNOWN
