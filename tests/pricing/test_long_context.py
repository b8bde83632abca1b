"""Thresholds: all input counts, and the whole request has the higher price."""

from __future__ import annotations

from decimal import Decimal

import pytest

from aibridge_flask.model import Usage
from tests.pricing.conftest import Price

# model, type, threshold, input and output below, input and output above
STEPS = [
    ("claude-haiku-5-5", "anthropic", 100_000, ("0.1", "0.5"), ("0.5", "2.5")),
    ("claude-sonnet-4-5", "anthropic", 200_000, ("3", "15"), ("6", "22.5")),
    ("gpt-5.5", "openai", 272_000, ("5", "30"), ("10", "45")),
    ("gemini-2.5-pro", "openai", 200_000, ("1.25", "10"), ("2.5", "15")),
]
FLAT = [
    ("claude-opus-5", "anthropic", "5", "25"),
    ("claude-sonnet-5", "anthropic", "2", "10"),
    ("claude-opus-4-6", "anthropic", "5", "25"),
    ("claude-haiku-4-5", "anthropic", "1", "5"),
    ("claude-opus-4-1", "anthropic", "15", "75"),
    ("gpt-5", "openai", "1.25", "10"),
    ("gpt-4o", "openai", "2.5", "10"),
    ("grok-4", "openai", "3", "15"),
]


@pytest.mark.parametrize("distance", [-1000, 0, 1, 100_000])
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step[0])
def test_above_the_threshold_the_whole_request_costs_more(
    price: Price, step: tuple[str, str, int, tuple[str, str], tuple[str, str]], distance: int
) -> None:
    model, provider, threshold, below, above = step
    input, output = map(Decimal, above if distance > 0 else below)
    exact = (threshold + distance) * input + 1000 * output
    expected = int(exact + Decimal("0.5"))
    assert price(model, Usage(threshold + distance, 1000), provider).micros == expected


@pytest.mark.parametrize("model", FLAT, ids=lambda model: model[0])
def test_other_models_are_flat(price: Price, model: tuple[str, str, str, str]) -> None:
    name, provider, input, output = model
    expected = int(300_000 * Decimal(input) + 1000 * Decimal(output))
    assert price(name, Usage(300_000, 1000), provider).micros == expected


def test_cached_tokens_count_for_the_threshold(price: Price) -> None:
    """Each of the kinds alone is below 200,000. Above it reads cost 0.6, writes 7.5 and 12."""
    usage = Usage(50_000, 100, 100_000, 51_000, {"cache_ephemeral_1h_input": 1000})
    exact = (
        50_000 * 6 + 100 * Decimal("22.5") + 100_000 * Decimal("0.6") + 50_000 * Decimal("7.5") + 1000 * 12
    )
    assert price("claude-sonnet-4-5", usage).micros == exact
    at_threshold = Usage(50_000, 100, 100_000, 50_000)
    exact = 50_000 * 3 + 100 * 15 + 100_000 * Decimal("0.3") + 50_000 * Decimal("3.75")
    assert price("claude-sonnet-4-5", at_threshold).micros == exact


def test_output_does_not_count_for_the_threshold(price: Price) -> None:
    assert price("claude-sonnet-4-5", Usage(199_000, 64_000)).micros == 199_000 * 3 + 64_000 * 15


def test_a_tier_that_served_a_long_context_has_the_prices_listed_for_it(price: Price) -> None:
    """`priority` costs 12.5 at any length; a request that was demoted is `default` in the answer."""
    usage = Usage(300_000)
    assert price("gpt-5.5", usage, "openai", service_tier="priority").micros == 3_750_000
    assert price("gpt-5.5", usage, "openai", service_tier="default").micros == 3_000_000


def test_fees_have_no_threshold(price: Price) -> None:
    usage = Usage(300_000, metadata={"web_search_requests": 2})
    assert price("claude-sonnet-4-5", usage).micros == 300_000 * 6 + 2 * 10_000
