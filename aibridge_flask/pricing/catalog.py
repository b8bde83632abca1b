"""Models and their list prices, as genai-prices collects them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from .fees import fees_of
from .rates import NO_RATES, Rates, make_rates
from .terms import Terms

if TYPE_CHECKING:  # slow to import
    from genai_prices.types import ModelInfo, ModelPrice, Provider

# The names that genai-prices has for a kind's price. An absent one costs what the next one costs.
_TOKEN_KEYS = {
    "input": ("input_mtok",),
    "input_audio": ("input_audio_mtok", "input_mtok"),
    "input_image": ("input_image_mtok", "input_mtok"),
    "cache_read": ("cache_read_mtok", "input_mtok"),
    "cache_write": ("cache_write_5m_mtok", "cache_write_mtok", "input_mtok"),
    "cache_write_1h": ("cache_write_1h_mtok", "cache_write_mtok", "input_mtok"),
    "output": ("output_mtok",),
    "output_audio": ("output_audio_mtok", "output_mtok"),
    "output_image": ("output_image_mtok", "output_mtok"),
    "output_reasoning": ("output_reasoning_mtok", "output_mtok"),
}
_FEE_KEYS = {
    "web_search": "web_searches_kcount",
    "file_search": "storage_searches_kcount",
    "code_execution": "code_executions_kcount",
}
_PROVIDER_IDS = {"anthropic": "anthropic", "openai": "openai", "bedrock": "aws"}
_NEVER_STANDARD = (("processing", "batch"), ("speed", "fast"))
_GEO_MODEL = re.compile(r"claude-(?:opus|sonnet)-(\d+)(?:-(\d+))?")
_GEO_FIRST = (4, 6)
_GEO_FACTOR = Fraction(11, 10)


class Entry(NamedTuple):
    """A model with its prices, and who lists it: the provider itself, or the model's maker."""

    lister: str
    model: ModelInfo


class Catalog:
    """The data of the library, or of a file in its format. It caches nothing: names come from outside."""

    def __init__(self, providers: Sequence[Provider], source: str, version: str) -> None:
        self._providers = {provider.id: provider for provider in providers}
        self._source, self._version = source, version

    def find(self, terms: Terms) -> tuple[Entry, ...]:
        """Returns the model that has the price, or ()."""
        if terms.provider == "copilot":  # it is paid by the seat
            return ()
        for reference in terms.references:
            for provider, name in self._candidates(terms.provider, reference):
                model = provider.find_model(name)
                if model is not None:
                    return (Entry(provider.id, model),)
        return ()

    def _candidates(self, provider_type: str, name: str) -> Iterator[tuple[Provider, str]]:
        """Yields who may have the price: the provider itself, then the model's maker."""
        own = self._providers.get(_PROVIDER_IDS.get(provider_type, ""))
        if own:
            yield own, name
        if provider_type != "bedrock":
            plain = name.rpartition("/")[2]  # routers write `maker/model`
            yield from ((maker, each) for each in (name, plain) for maker in self._makers(each))

    def _makers(self, name: str) -> Iterable[Provider]:
        name = name.lower()
        return (
            each for each in self._providers.values() if each.model_match and each.model_match.is_match(name)
        )

    def rates(self, entry: Entry, terms: Terms, factor: Fraction) -> Rates:
        """Returns the prices at these terms, times `factor`. NO_RATES if they are not known."""
        model, context = entry.model, terms.context
        standard = model.get_prices(terms.at)
        special = [{key: value} for key, value in _NEVER_STANDARD if context.get(key) == value]
        if any(model.get_prices(terms.at, each) == standard for each in special):
            return NO_RATES  # the library gives the standard price where it knows no other
        prices = model.get_prices(terms.at, context)
        fees = {kind: fee * factor for kind, fee in read_fees(entry.lister, prices).items()}
        steps = read_steps(prices, factor * _geo_factor(model, terms))
        return make_rates(steps, fees, self._source, self._version)


def read_steps(prices: ModelPrice, factor: Fraction) -> dict[int, dict[str, Fraction]]:
    """Returns the prices of tokens by the input tokens above which they hold."""
    listed = vars(prices)
    values = {kind: _first(listed, keys) for kind, keys in _TOKEN_KEYS.items()}
    known = {kind: value for kind, value in values.items() if value is not None}
    starts = {-1, *(tier.start for value in known.values() for tier in getattr(value, "tiers", ()))}
    return {
        start: {kind: _price_from(value, start) * factor for kind, value in known.items()} for start in starts
    }


def _first(listed: Mapping[str, Any], keys: Iterable[str]) -> Any:
    return next((listed[key] for key in keys if listed.get(key) is not None), None)


def _price_from(value: object, start: int) -> Fraction:
    """Returns the price from `start` on. Raises ValueError if it is none."""
    tiers = [tier for tier in getattr(value, "tiers", ()) if tier.start <= start]
    price = max(tiers, key=lambda tier: tier.start).price if tiers else getattr(value, "base", value)
    if not isinstance(price, Decimal) or not price.is_finite() or price < 0:
        raise ValueError(f"{price!r} is no price")
    return Fraction(price)


def read_fees(lister: str, prices: ModelPrice) -> dict[str, Fraction]:
    """Returns the fees in micro-dollars per use."""
    known = {kind: vars(prices).get(key) for kind, key in _FEE_KEYS.items()}
    return fees_of(lister, {kind: _price_from(fee, -1) for kind, fee in known.items() if fee is not None})


def _geo_factor(model: ModelInfo, terms: Terms) -> Fraction:
    """Returns what Anthropic takes for inference in the United States alone.

    Bedrock's models have other ids; their region is in the profile.
    """
    match = _GEO_MODEL.fullmatch(model.id)
    if terms.inference_geo != "us" or not match:
        return Fraction(1)
    version = int(match[1]), int(match[2] or 0)
    return _GEO_FACTOR if version >= _GEO_FIRST else Fraction(1)
