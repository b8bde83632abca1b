"""Prices of the settings, and factors."""

from __future__ import annotations

import pytest

from aibridge_flask import ConfigError, config
from aibridge_flask.model import Usage
from tests.pricing.conftest import MakePrice

USAGE = Usage(100, 10, 1000, 300, {"cache_ephemeral_1h_input": 200, "web_search_requests": 2})
FEE = 2 * 10_000
LIST = 100 * 3 + 10 * 15 + 300 + 375 + 200 * 6  # claude-sonnet-4-5
OWN = {"input": 2.0, "output": 8.0}


def test_all_own_prices_count(make_price: MakePrice) -> None:
    all_set = {**OWN, "cache_read": 0.5, "cache_write": 3.0, "cache_write_1h": 4.0, "web_search": 5.0}
    cost = make_price(prices={"m": all_set})("m", USAGE)
    assert cost.micros == 200 + 80 + 500 + 300 + 800 + 2 * 5000
    assert cost.saved_micros == 1000 * 3 // 2 - 100 - 200 * 2
    assert (cost.source, cost.version) == ("settings", "")


@pytest.mark.parametrize(
    ("further", "cached"),
    [
        ({}, 1000 * 2 + 100 * 2 + 200 * 2),
        ({"cache_read": 0.2}, 1000 * 0.2 + 100 * 2 + 200 * 2),
        ({"cache_write": 3.0}, 1000 * 2 + 100 * 3 + 200 * 3),
        ({"cache_write_1h": 4.0}, 1000 * 2 + 100 * 2 + 200 * 4),
        ({"cache_read": 0.0, "cache_write": 0.0}, 0),
    ],
)
def test_absent_cache_prices(make_price: MakePrice, further: dict[str, float], cached: float) -> None:
    cost = make_price(prices={"m": {**OWN, **further}})("m", USAGE)
    assert cost.micros == 200 + 80 + cached + FEE


@pytest.mark.parametrize(
    ("model", "input"),
    [
        ("llama-3", 4),  # exact
        ("llama-3-70b", 3),  # the longest
        ("llama-2", 2),
        ("llama", 1),
        ("a", 1),
        ("LLAMA-3", 1),
    ],
)
def test_names_are_patterns(make_price: MakePrice, model: str, input: int) -> None:
    names = ["*", "llama-*", "llama-3*", "llama-3"]
    price = make_price(prices={name: {"input": n + 1.0, "output": 0.0} for n, name in enumerate(names)})
    assert price(model, Usage(1000)).micros == input * 1000


@pytest.mark.parametrize(
    ("served", "asked", "input"),
    [("a", "b", 1), ("c", "b", 2), ("", "b", 2), ("p-1", "b", 3), ("p-1", "a", 3)],
)
def test_the_model_that_served_comes_first(
    make_price: MakePrice, served: str, asked: str, input: int
) -> None:
    prices = {name: {"input": n + 1.0, "output": 0.0} for n, name in enumerate(("a", "b", "p-*"))}
    assert make_price(prices=prices)(served, Usage(1000), asked=asked).micros == input * 1000


def test_settings_come_before_the_library(make_price: MakePrice) -> None:
    price = make_price(prices={"claude-sonnet-4-5": OWN})
    assert price("claude-sonnet-4-5", Usage(1000)).micros == 2000
    assert price("claude-sonnet-4-5-20250929", Usage(1000)).micros == 3000
    assert price("claude-opus-5", Usage(1000)).micros == 5000


def test_own_prices_hold_whatever_the_answer_says(make_price: MakePrice) -> None:
    price = make_price(prices={"claude-*": OWN})
    terms = {"service_tier": "batch", "speed": "fast", "inference_geo": "us", "is_batch": True}
    assert price("claude-opus-5", Usage(1000, 100), **terms).micros == 2800
    assert price("claude-sonnet-4-5", Usage(500_000)).micros == 1_000_000


def test_an_absent_fee_is_the_list_price(make_price: MakePrice) -> None:
    """gemini-2.5-flash has 35 per 1,000, whoever sells its tokens; who is unknown has 10."""
    price = make_price(prices={"*": {"input": 0.0, "output": 0.0}})
    searches = Usage(metadata={"web_search_requests": 2})
    assert price("gemini-2.5-flash", searches, "openai").micros == 70_000
    assert price("of-nobody", searches, "openai").micros == 20_000
    assert price("gpt-4o", searches, "copilot").micros == 20_000


@pytest.mark.parametrize("factor", [0.0, 0.5, 0.85, 1, 1.25])
def test_the_factor_is_for_tokens_and_fees_at_list_price(make_price: MakePrice, factor: float) -> None:
    providers = [{"type": "anthropic", "price_factor": factor}, {"type": "anthropic", "name": "full"}]
    price = make_price(providers=providers, prices={"own": {**OWN, "web_search": 10.0}})
    cost = price("claude-sonnet-4-5", USAGE)
    hundredths = round(factor * 100)
    assert cost.micros == ((LIST + FEE) * hundredths + 50) // 100
    assert cost.saved_micros == (2025 * hundredths + 50) // 100  # 2700 - 75 - 600
    assert price("claude-sonnet-4-5", USAGE, provider_name="full").micros == LIST + FEE
    assert price("own", USAGE).micros == 200 + 80 + 2000 + 200 + 400 + FEE


def test_the_factor_of_a_list_fee_beside_own_prices(make_price: MakePrice) -> None:
    price = make_price(providers=[{"type": "openai", "price_factor": 0.5}], prices={"own": OWN})
    assert price("own", Usage(1000, metadata={"web_search_requests": 1}), "openai").micros == 2000 + 5000


@pytest.mark.parametrize("name", ["a*b", "*a", "**", "", " "])
def test_a_name_that_is_no_pattern_stops_the_start(name: str) -> None:
    with pytest.raises(ConfigError, match=r"prices\.") as caught:
        config.load({"prices": {name: OWN}})
    assert f"prices.{name}: the name of a model" in str(caught.value)


@pytest.mark.parametrize(
    ("further", "path"),
    [
        ({"cache_write_1h": -1}, "prices.m.cache_write_1h: "),
        ({"web_search": "10"}, "prices.m.web_search: "),
        ({"cache_read": float("inf")}, "prices.m.cache_read: "),
        ({"cache_writes": 1}, "prices.m.cache_writes: "),
    ],
)
def test_a_wrong_price_stops_the_start(further: dict[str, object], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load({"prices": {"m": {**OWN, **further}}})
    assert path in str(caught.value)


def test_a_wrong_factor_stops_the_start() -> None:
    with pytest.raises(ConfigError, match=r"providers\[0\]\.price_factor"):
        config.load({"providers": [{"type": "openai", "price_factor": -0.5}]})
