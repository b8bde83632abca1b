"""Fees for each use of a provider's tools, beside what their tokens cost."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

_PER_USE = 1000  # US$ per 1,000 uses are so many micro-dollars per use
DEFAULT_FEES = {"web_search": Fraction(10 * _PER_USE)}
# What genai-prices does not list, by its id of the maker: https://docs.x.ai/developers/pricing
_MAKERS_FEES: Mapping[str, Mapping[str, Fraction]] = {
    "x-ai": {
        "web_search": Fraction(5 * _PER_USE),
        "x_post": Fraction(5 * _PER_USE),
        "x_user": Fraction(10 * _PER_USE),
        "code_execution": Fraction(5 * _PER_USE),
        "document_search": Fraction(10 * _PER_USE),
        "file_search": Fraction(5 * _PER_USE, 2),
    }
}


def fees_of(maker: str, listed: Mapping[str, Fraction]) -> dict[str, Fraction]:
    """Returns a maker's fees in micro-dollars per use. `listed` are those of a catalog, in US$ per 1,000."""
    known = {kind: fee * _PER_USE for kind, fee in listed.items()}
    return {**DEFAULT_FEES, **_MAKERS_FEES.get(maker, {}), **known}
