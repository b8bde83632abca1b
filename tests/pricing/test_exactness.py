"""Rounding, absurd counts, bounds, and that nothing is raised."""

from __future__ import annotations

import random
from decimal import Decimal, getcontext, localcontext
from time import thread_time

import pytest

from aibridge_flask import config
from aibridge_flask.model import Asked, Usage
from aibridge_flask.pricing import UNPRICED, PriceList
from aibridge_flask.records.costs import Costs
from aibridge_flask.records.events import Ended, TokenUsage
from tests.pricing.conftest import NOON, MakePrice, Price, bill


@pytest.mark.parametrize(("pairs", "micros"), [(1, 0), (2, 1), (3, 1), (5, 1), (6, 2), (9, 2), (10, 3)])
def test_a_cost_is_rounded_once_half_up(make_price: MakePrice, pairs: int, micros: int) -> None:
    """Each pair costs 0.1 and 0.15: if each kind were rounded by itself, 2 pairs would cost 0."""
    price = make_price(prices={"m": {"input": 0.1, "output": 0.15}})
    assert price("m", Usage(pairs, pairs)).micros == micros
    assert price("m", Usage(5)).micros == 1  # exactly a half


def test_no_binary_fraction_gets_in(make_price: MakePrice) -> None:
    """As floats, 0.1 + 0.2 is more than 0.3, and 4.35 * 100 is less than 435."""
    price = make_price(prices={"m": {"input": 0.145, "output": 4.35}})
    assert price("m", Usage(100, 0)).micros == 15  # 14.5
    assert price("m", Usage(0, 10)).micros == 44  # 43.5


def test_what_the_cache_saved_is_rounded_half_up_too(make_price: MakePrice) -> None:
    price = make_price(prices={"m": {"input": 1.0, "output": 0.0, "cache_read": 0.5, "cache_write": 1.5}})
    assert [price("m", Usage(0, 0, reads)).saved_micros for reads in (1, 2, 3)] == [1, 1, 2]
    assert [price("m", Usage(0, 0, 0, writes)).saved_micros for writes in (1, 2, 3)] == [0, -1, -1]


def test_the_context_of_decimals_does_not_matter(price: Price) -> None:
    usage = Usage(123_456, 7891, 23_456, 3456)
    expected = price("claude-opus-5", usage, asked="a").micros
    with localcontext() as context:
        context.prec = 2
        assert getcontext().prec == 2
        assert price("claude-opus-5", usage, asked="b").micros == expected
    assert expected == 123_456 * 5 + 7891 * 25 + 23_456 // 2 + 3456 * 25 // 4


def test_nothing_used_costs_nothing_and_is_priced(price: Price) -> None:
    cost = price("claude-opus-5", Usage())
    assert (cost.is_priced, cost.micros, cost.saved_micros) == (True, 0, 0)


@pytest.mark.parametrize("count", [-1, -(2**63), 10**12 + 1, 2**63 - 1])
@pytest.mark.parametrize(
    "kind", ["input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens"]
)
def test_absurd_counts_are_unpriced(price: Price, kind: str, count: int) -> None:
    assert price("claude-opus-5", Usage(**{"input_tokens": 1, kind: count})) == UNPRICED


@pytest.mark.parametrize(
    "further",
    [
        {"cache_ephemeral_1h_input": -1},
        {"cache_ephemeral_1h_input": 2**63 - 1},
        {"cache_ephemeral_5m_input": 2**63 - 1},
        {"web_search_requests": -1},
        {"web_search_requests": 2**63 - 1},
        {"output_audio": -1},
    ],
    ids=str,
)
def test_absurd_further_counts_are_unpriced(price: Price, further: dict[str, int]) -> None:
    assert price("claude-opus-5", Usage(1, 1, 1, 1, further)) == UNPRICED


def test_a_part_is_never_more_than_the_whole(price: Price) -> None:
    usage = Usage(100, 10, metadata={"output_reasoning": 1000, "input_audio": 1000, "unknown_kind": 10**15})
    assert price("gpt-5", usage, "openai").micros == 125 + 100


def test_an_absurd_price_is_none(make_price: MakePrice) -> None:
    price = make_price(prices={"m": {"input": 1e300, "output": 0.0, "cache_read": 0.0}})
    assert not price("m", Usage(1)).is_priced
    assert not price("m", Usage(0, 0, 1)).is_priced  # it would have saved as much
    assert price("m", Usage(0, 1)).micros == 0


def test_any_terms_are_taken(price: Price) -> None:
    seed = random.Random(7)
    words = [
        "",
        "claude-opus-5",
        "gpt-5",
        "us.",
        "[",
        "\0",
        "\ud800",
        "🂡" * 99,
        "x" * 5000,
        "batch",
        "fast",
        "us",
        "global.",
    ]
    for _ in range(3000):
        names = ("asked", "provider_name", "profile", "service_tier", "speed", "inference_geo")
        terms = {name: seed.choice(words) for name in names}
        provider = seed.choice(["anthropic", "openai", "bedrock", "copilot", ""])
        cost = price(seed.choice(words), Usage(1000), provider, **terms, is_batch=seed.random() < 0.5)
        assert cost.micros >= 0


def test_a_cost_is_the_sum_of_its_kinds(price: Price) -> None:
    """Below the thresholds, and with prices that come out even for thousands of tokens."""
    seed = random.Random(11)
    parts = [
        lambda n: Usage(n),
        lambda n: Usage(0, n),
        lambda n: Usage(0, 0, n),
        lambda n: Usage(0, 0, 0, n),
        lambda n: Usage(0, 0, 0, n, {"cache_ephemeral_1h_input": n}),
        lambda n: Usage(metadata={"web_search_requests": n}),
    ]
    for model in ("claude-opus-5", "claude-sonnet-4-5", "claude-haiku-5-5"):
        for _ in range(50):
            usages = [part(seed.randrange(0, 16) * 1000) for part in parts]
            whole = Usage()
            for usage in usages:
                whole = whole.plus(usage)
            costs = [price(model, usage) for usage in usages]
            cost = price(model, whole)
            assert cost.micros == sum(each.micros for each in costs)
            assert cost.saved_micros == sum(each.saved_micros for each in costs)


def test_more_tokens_never_cost_less(price: Price) -> None:
    seed = random.Random(13)
    for model, provider in (("claude-sonnet-4-5", "anthropic"), ("gpt-5.5", "openai")):
        for _ in range(200):
            counts = [seed.randrange(0, 150_000) for _ in range(4)]
            more = [count + seed.randrange(0, 50_000) for count in counts]
            assert (
                price(model, Usage(*more), provider).micros >= price(model, Usage(*counts), provider).micros
            )


def test_names_of_upstreams_fill_no_memory() -> None:
    """What is kept is bounded in number and in bytes, also what the library keeps."""
    from genai_prices import data_snapshot

    prices = PriceList(config.load({}))
    library = data_snapshot.get_snapshot()
    kept = len(library._lookup_cache), len(library._provider_cache), len(library._provider_misses)
    for n in range(3000):
        assert not prices.cost(bill(f"claude-nobody-{n}", Usage(1))).is_priced
    info = prices._cached_rates.cache_info()
    assert info.currsize == info.maxsize == 1024
    prices.cost(bill("x" * 100_000, Usage(1)))
    assert prices._cached_rates.cache_info() == info
    assert (len(library._lookup_cache), len(library._provider_cache), len(library._provider_misses)) == kept


def test_usages_of_the_same_half_hour_are_priced_from_the_cache() -> None:
    prices = PriceList(config.load({}))
    for minute in range(30):
        usage = Usage(300_000 * minute, minute)
        assert prices.cost(bill("claude-sonnet-4-5", usage, at=NOON.replace(minute=minute))).is_priced
    assert prices._cached_rates.cache_info().misses == 1


def test_a_request_is_priced_within_100_microseconds() -> None:
    """The usage and the end, as they are written, by the processor's time of this thread."""
    prices, count = PriceList(config.load({})), 500
    asked = Asked("claude-sonnet-4-5", "anthropic", "anthropic")

    def measure() -> float:
        usages = [
            TokenUsage(
                f"{n}", 0, "r", asked.model, Usage(n, 9, n, n, {"web_search_requests": 1}), NOON, asked=asked
            )
            for n in range(count)
        ]
        ends = [Ended(usage.interception_id, NOON, usages=(usage,)) for usage in usages]
        begun, costs = thread_time(), Costs(prices)
        for usage, end in zip(usages, ends, strict=True):
            assert costs.of_usage(usage)["cost_micros"] == costs.of_interception(end)["new_cost_micros"]
        return (thread_time() - begun) / count

    assert min(measure() for _ in range(5)) < 100e-6


def test_a_float_in_the_settings_is_what_is_written(make_price: MakePrice) -> None:
    price = make_price(providers=[{"type": "openai", "price_factor": 0.8765}])
    exact = Decimal(1_000_000) * Decimal("1.25") * Decimal("0.8765")
    assert price("gpt-5", Usage(1_000_000), "openai").micros == exact
