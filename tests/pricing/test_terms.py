"""What the answer says of tier, speed, region and batch, and the time of the request."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from aibridge_flask.model import Usage
from tests.pricing.conftest import NOON, MakePrice, Price

USAGE = Usage(1000, 100, metadata={"web_search_requests": 1})
FEE = 10_000


@pytest.mark.parametrize("tier", ["", "standard", "default", "auto", "scale", "on_demand", "unheard-of"])
def test_a_tier_without_listed_prices_costs_the_standard_price(price: Price, tier: str) -> None:
    for model, provider in (("claude-opus-5", "anthropic"), ("gpt-5.5", "openai")):
        expected = 1000 * 5 + 100 * (25 if provider == "anthropic" else 30) + FEE
        assert price(model, USAGE, provider, service_tier=tier).micros == expected


@pytest.mark.parametrize(
    ("model", "tier", "input", "output"),
    [
        ("gpt-5.5", "priority", 12.5, 75),
        ("gpt-5.5", "fast", 12.5, 75),
        ("gpt-5.5", "flex", 2.5, 15),
        ("gpt-5", "priority", 2.5, 20),
        ("gpt-5", "flex", 0.625, 5),
        ("gpt-4o", "priority", 4.25, 17),
    ],
)
def test_the_tier_that_served_has_its_prices(
    price: Price, model: str, tier: str, input: float, output: float
) -> None:
    expected = 1000 * input + 100 * output + FEE
    assert price(model, USAGE, "openai", service_tier=tier).micros == expected


def test_a_fast_answer_costs_what_is_listed_or_is_unpriced(price: Price) -> None:
    assert price("claude-opus-5", USAGE, speed="fast").micros == 1000 * 10 + 100 * 50 + FEE
    assert price("claude-opus-5", USAGE, speed="standard").micros == 1000 * 5 + 100 * 25 + FEE
    assert not price("claude-sonnet-4-5", USAGE, speed="fast").is_priced


def test_a_batch_never_costs_the_standard_price(price: Price) -> None:
    half = (1000 * 5 + 100 * 25) // 2 + FEE
    assert price("claude-opus-5", USAGE, service_tier="batch").micros == half
    assert price("claude-opus-5", USAGE, is_batch=True).micros == half
    assert price("gpt-4o", USAGE, "openai", is_batch=True).micros == 1000 * 5 // 4 + 100 * 5 + FEE
    assert not price("claude-opus-4-1", USAGE, is_batch=True).is_priced


@pytest.mark.parametrize(
    ("model", "input", "output"),
    [
        ("claude-opus-5", 5, 25),
        ("claude-opus-4-6", 5, 25),
        ("claude-opus-4-8", 5, 25),
        ("claude-sonnet-4-6", 3, 15),
        ("claude-sonnet-5", 2, 10),
        ("claude-sonnet-5-20260901", 2, 10),
    ],
)
def test_inference_in_the_us_costs_a_tenth_more_on_tokens(
    price: Price, model: str, input: int, output: int
) -> None:
    tokens = 1000 * input + 100 * output
    assert price(model, USAGE, inference_geo="us").micros == tokens * 11 // 10 + FEE
    for geo in ("", "global", "not_available", "eu"):
        assert price(model, USAGE, inference_geo=geo).micros == tokens + FEE


@pytest.mark.parametrize(
    "model", ["claude-opus-4-1", "claude-sonnet-4-5", "claude-haiku-4-5", "claude-opus-4-5"]
)
def test_older_models_and_haiku_cost_the_same_everywhere(price: Price, model: str) -> None:
    assert price(model, USAGE, inference_geo="us") == price(model, USAGE)


def test_the_region_and_the_speed_multiply_the_cache_too(price: Price) -> None:
    metadata = {"cache_ephemeral_1h_input": 2000}
    usage = Usage(0, 0, 10_000, 3000, metadata)
    cost = price("claude-opus-5", usage, inference_geo="us", speed="fast")
    assert cost.micros == (10_000 * 1 + 1000 * 12.5 + 2000 * 20) * 11 / 10
    assert cost.saved_micros == (10_000 * 9 - 1000 * 2.5 - 2000 * 10) * 11 / 10


def test_the_bedrock_profile_says_the_region_already(price: Price) -> None:
    profile = "us.anthropic.claude-opus-4-6-v1"
    cost = price("claude-opus-4-6", USAGE, "bedrock", profile=profile, inference_geo="us")
    assert cost.micros == (1000 * 5 + 100 * 25) * 11 // 10 + FEE


def test_prices_follow_the_time_of_the_request(
    make_price: MakePrice, write_prices: Callable[..., str]
) -> None:
    night = {"start_time": "16:30:00Z", "end_time": "00:30:00Z"}
    prices = [
        {"prices": {"input_mtok": 4, "output_mtok": 4}},
        {"constraint": {"start_date": "2026-11-28"}, "prices": {"input_mtok": 3, "output_mtok": 4}},
        {"constraint": night, "prices": {"input_mtok": 1, "output_mtok": 4}},
    ]
    price = make_price(prices_file=write_prices({"id": "m", "match": {"equals": "m"}, "prices": prices}))
    by_time = {
        NOON: 4,
        NOON.replace(hour=16, minute=29, second=59): 4,
        NOON.replace(hour=16, minute=30, second=0): 1,
        NOON.replace(hour=23, minute=59): 1,
        NOON.replace(day=28, hour=0, minute=29): 1,
        NOON.replace(day=28, hour=0, minute=30): 3,
        NOON + timedelta(days=1): 3,
    }
    for at, expected in by_time.items():
        assert price("m", Usage(1_000_000), "openai", at=at).micros == expected * 1_000_000
