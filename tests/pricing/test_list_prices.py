"""List prices, kind by kind: of November 2026, in US$ per million tokens."""

from __future__ import annotations

from decimal import Decimal

import pytest

from aibridge_flask.model import Usage
from tests.pricing.conftest import Price

# model, provider's type, input, output, cache read, cache write, cache write for an hour ("": as input)
LIST = [
    ("claude-opus-5", "anthropic", "5", "25", "0.5", "6.25", "10"),
    ("claude-sonnet-5", "anthropic", "2", "10", "0.2", "2.5", "4"),
    ("claude-haiku-5-5", "anthropic", "0.1", "0.5", "0.01", "0.125", "0.2"),
    ("claude-opus-4-6", "anthropic", "5", "25", "0.5", "6.25", "10"),
    ("claude-sonnet-4-5", "anthropic", "3", "15", "0.3", "3.75", "6"),
    ("claude-haiku-4-5", "anthropic", "1", "5", "0.1", "1.25", "2"),
    ("claude-opus-4-1", "anthropic", "15", "75", "1.5", "18.75", "30"),
    ("gpt-5.5", "openai", "5", "30", "0.5", "", ""),
    ("gpt-5", "openai", "1.25", "10", "0.125", "", ""),
    ("gpt-5-mini", "openai", "0.25", "2", "0.025", "", ""),
    ("gpt-4.1", "openai", "2", "8", "0.5", "", ""),
    ("gpt-4o", "openai", "2.5", "10", "1.25", "", ""),
    ("o3", "openai", "2", "8", "0.5", "", ""),
    ("grok-4", "openai", "3", "15", "0.75", "", ""),
    ("gemini-2.5-pro", "openai", "1.25", "10", "0.125", "", ""),
]


@pytest.mark.parametrize("row", LIST, ids=lambda row: row[0])
def test_each_kind_has_its_own_price(price: Price, row: tuple[str, ...]) -> None:
    model, provider, input, output, read, write, write_1h = row
    usages = {
        input: Usage(input_tokens=10_000),
        output: Usage(output_tokens=10_000),
        read: Usage(cache_read_input_tokens=10_000),
        write or input: Usage(cache_write_input_tokens=10_000, metadata={"cache_ephemeral_5m_input": 10_000}),
        write_1h or input: Usage(
            cache_write_input_tokens=10_000, metadata={"cache_ephemeral_1h_input": 10_000}
        ),
    }
    for expected, usage in usages.items():
        cost = price(model, usage, provider)
        assert (cost.is_priced, cost.micros) == (True, int(Decimal(expected) * 10_000)), usage


@pytest.mark.parametrize("row", LIST, ids=lambda row: row[0])
def test_cached_tokens_are_counted_once(price: Price, row: tuple[str, ...]) -> None:
    model, provider, *listed = row
    input, output, read, write, write_1h = (Decimal(each or listed[0]) for each in listed)
    metadata = {"cache_ephemeral_5m_input": 3000, "cache_ephemeral_1h_input": 4000}
    usage = Usage(1000, 500, 2000, 7000, metadata)
    exact = 1000 * input + 500 * output + 2000 * read + 3000 * write + 4000 * write_1h
    saved = 2000 * (input - read) - 3000 * (write - input) - 4000 * (write_1h - input)
    cost = price(model, usage, provider)
    assert (cost.micros, cost.saved_micros, cost.source) == (int(exact), int(saved), "genai-prices")


def test_a_cache_write_for_an_hour_is_not_one_for_five_minutes(price: Price) -> None:
    metadata = {"cache_ephemeral_1h_input": 10_000}
    cost = price("claude-sonnet-4-5", Usage(100, 10, 0, 10_000, metadata))
    assert cost.micros == 100 * 3 + 10 * 15 + 10_000 * 6
    assert cost.saved_micros == -10_000 * (6 - 3)


def test_writes_of_unknown_duration_are_for_five_minutes(price: Price) -> None:
    metadata = {"cache_ephemeral_1h_input": 400}
    assert price("claude-opus-5", Usage(0, 0, 0, 1000, metadata)).micros == 600 * 25 // 4 + 400 * 10


def test_parts_of_writes_count_where_no_sum_is_told(price: Price) -> None:
    metadata = {"cache_ephemeral_5m_input": 400, "cache_ephemeral_1h_input": 100}
    assert price("claude-opus-4-1", Usage(metadata=metadata)).micros == 400 * 75 // 4 + 100 * 30


@pytest.mark.parametrize("model", ["claude-sonnet-4-5", "claude-opus-5"])
def test_searches_cost_and_fetches_are_free(price: Price, model: str) -> None:
    uses = {"web_search_requests": 3, "web_fetch_requests": 5, "tool_search_requests": 7}
    tokens = price(model, Usage(100, 10)).micros
    assert price(model, Usage(100, 10, metadata=uses)).micros == tokens + 3 * 10_000


@pytest.mark.parametrize("model", ["gpt-5.5", "gpt-4o", "o3", "gpt-4o-audio-preview"])
def test_a_search_costs_once_whether_the_library_lists_it_or_not(price: Price, model: str) -> None:
    tokens = price(model, Usage(100, 10), "openai").micros
    uses = {"web_search_requests": 2}
    assert price(model, Usage(100, 10, metadata=uses), "openai").micros == tokens + 2 * 10_000


def test_a_file_search_has_a_fee_and_a_code_execution_none_that_is_known(price: Price) -> None:
    uses = {"file_search_requests": 4, "code_execution_requests": 3}
    assert price("gpt-5", Usage(8, 1, metadata=uses), "openai").micros == 10 + 10 + 4 * 2500


@pytest.mark.parametrize(
    ("uses", "fee"),
    [
        ({"web_search_requests": 3}, 3 * 5000),
        ({"code_execution_requests": 2}, 2 * 5000),
        ({"document_search_requests": 2}, 2 * 10_000),
        ({"file_search_requests": 4}, 4 * 2500),
        ({"x_search_requests": 2, "x_posts_fetched": 7, "x_users_fetched": 3}, 7 * 5000 + 3 * 10_000),
        ({"mcp_requests": 9, "unheard_of_requests": 9}, 0),
    ],
    ids=str,
)
def test_xai_has_fees_of_its_own(price: Price, uses: dict[str, int], fee: int) -> None:
    """US$ per 1,000: web search 5, code 5, documents 10, collections 2.50, posts of X 5, users of X 10."""
    for model in ("grok-4", "x-ai/grok-4"):
        assert price(model, Usage(100, 10, metadata=uses), "openai").micros == 100 * 3 + 10 * 15 + fee
    others = price(
        "gpt-5", Usage(8, 1, metadata={"x_posts_fetched": 7, "document_search_requests": 1}), "openai"
    )
    assert others.micros == 10 + 10


def test_reasoning_is_part_of_the_output(price: Price) -> None:
    for name in ("output_reasoning", "completion_reasoning", "output_thinking"):
        assert price("gpt-5", Usage(0, 1000, metadata={name: 900}), "openai").micros == 1000 * 10


def test_audio_has_its_own_price_where_it_is_listed(price: Price) -> None:
    """gpt-4o-realtime-preview: text 5 and 20, audio 40 and 80; gpt-4o has no price for audio."""
    for input, output in (("prompt_audio", "completion_audio"), ("input_audio", "output_audio")):
        usage = Usage(1000, 500, metadata={input: 600, output: 500})
        realtime = price("gpt-4o-realtime-preview", usage, "openai")
        assert realtime.micros == 400 * 5 + 600 * 40 + 500 * 80
        assert price("gpt-4o", usage, "openai").micros == 1000 * 5 // 2 + 500 * 10


def test_images_have_their_own_price_where_it_is_listed(price: Price) -> None:
    """chatgpt-image-latest: text 5 and 10, images 8 and 32."""
    usage = Usage(1000, 1000, metadata={"input_image": 400, "output_image": 900, "input_text": 600})
    expected = 600 * 5 + 400 * 8 + 100 * 10 + 900 * 32
    assert price("chatgpt-image-latest", usage, "openai").micros == expected
