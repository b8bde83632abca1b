"""Whose price counts: the model that served, and the provider behind it."""

from __future__ import annotations

import pytest

from aibridge_flask.model import Usage
from tests.pricing.conftest import MakePrice, Price

USAGE = Usage(1000, 100)
SONNET = "anthropic.claude-sonnet-4-5-20250929-v1:0"
ACCOUNT = "arn:aws:bedrock:us-east-1:123456789012"


@pytest.mark.parametrize(
    ("profile", "micros"),
    [
        (f"global.{SONNET}", 4500),
        (f"us.{SONNET}", 4950),
        (f"eu.{SONNET}", 4950),
        (f"apac.{SONNET}", 4950),
        (f"jp.{SONNET}", 4950),
        (SONNET, 4950),
        (f"{ACCOUNT}:inference-profile/global.{SONNET}", 4500),
        (f"{ACCOUNT}:inference-profile/us.{SONNET}", 4950),
        (f"arn:aws:bedrock:us-east-1::foundation-model/{SONNET}", 4950),
        (f"{ACCOUNT}:application-inference-profile/x4", 4950),
        ("", 4950),
        ("global.anthropic.claude-opus-5", 1000 * 5 + 100 * 25),
        ("us.anthropic.claude-opus-5", 5500 + 2750),
        ("apac.anthropic.claude-opus-5", 5500 + 2750),
        ("us.anthropic.claude-haiku-4-5-20251001-v1:0", 1100 + 550),
        ("eu.anthropic.claude-opus-4-1-20250805-v1:0", 1000 * 15 + 100 * 75),
    ],
)
def test_bedrock_is_priced_by_the_profile(price: Price, profile: str, micros: int) -> None:
    """The answer names the model without region; what it says does not count beside the profile."""
    cost = price("claude-sonnet-4-5-20250929", USAGE, "bedrock", asked="claude-sonnet-4-5", profile=profile)
    assert (cost.is_priced, cost.micros) == (True, micros)


@pytest.mark.parametrize(
    "profile",
    [
        "global.anthropic.claude-nobody-9",
        "global.anthropic.claude-opus-4-1-20250805-v1:0",
        f"{ACCOUNT}:provisioned-model/abc",
        "us.",
        "//",
    ],
)
def test_an_unknown_profile_is_unpriced(price: Price, profile: str) -> None:
    assert not price("claude-sonnet-4-5-20250929", USAGE, "bedrock", profile=profile).is_priced


def test_a_price_by_the_profile_of_an_application(make_price: MakePrice) -> None:
    profile = f"{ACCOUNT}:application-inference-profile/x4"
    price = make_price(prices={profile: {"input": 1.0, "output": 2.0}})
    cost = price("claude-sonnet-4-5-20250929", USAGE, "bedrock", profile=profile)
    assert (cost.micros, cost.source) == (1200, "settings")


@pytest.mark.parametrize(
    ("model", "micros"),
    [
        ("grok-4", 1000 * 3 + 100 * 15),
        ("x-ai/grok-4", 1000 * 3 + 100 * 15),
        ("gemini-2.5-pro", 1250 + 1000),
        ("models/gemini-2.5-pro", 1250 + 1000),
        ("claude-sonnet-4-5", 1000 * 3 + 100 * 15),
        ("anthropic/claude-sonnet-4.5", 1000 * 3 + 100 * 15),
        ("openai/gpt-4o", 2500 + 1000),
        ("GPT-4o", 2500 + 1000),
    ],
)
def test_behind_type_openai_the_maker_prices_its_model(price: Price, model: str, micros: int) -> None:
    assert price(model, USAGE, "openai", provider_name="elsewhere").micros == micros


@pytest.mark.parametrize("model", ["deepseek-chat", "mistral-large-latest", "kimi-k2", "minimax-m2"])
def test_further_makers_are_known(price: Price, model: str) -> None:
    assert price(model, USAGE, "openai").is_priced
    assert price(model, USAGE, "openai") == price(model, USAGE, "anthropic")


def test_behind_type_anthropic_the_maker_prices_its_model(price: Price) -> None:
    assert price("grok-4", USAGE).micros == 1000 * 3 + 100 * 15


@pytest.mark.parametrize(
    "model", ["gpt-99", "my-model", "llama-3.3-70b", "", "claude-nobody-1", "*", "/", "gpt-"]
)
@pytest.mark.parametrize("provider", ["anthropic", "openai", "bedrock", "copilot", "unheard-of"])
def test_an_unknown_model_is_unpriced(price: Price, model: str, provider: str) -> None:
    cost = price(model, USAGE, provider)
    assert (cost.is_priced, cost.source, cost.version) == (False, "", "")


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-5", "claude-sonnet-4.5", "gpt-4.1", "copilot"])
def test_copilot_is_never_at_list_price(price: Price, make_price: MakePrice, model: str) -> None:
    assert not price(model, USAGE, "copilot").is_priced
    own = make_price(prices={model: {"input": 0.0, "output": 0.0}})(model, USAGE, "copilot")
    assert (own.is_priced, own.micros) == (True, 0)


@pytest.mark.parametrize(
    ("served", "asked", "micros"),
    [
        ("claude-haiku-4-5", "claude-opus-5", 1500),  # the one that served
        ("", "claude-opus-5", 7500),  # none is named
        ("claude-nobody-1", "claude-opus-5", None),
        ("claude-nobody-1-20260101", "claude-nobody-1", None),
        ("gpt-4o-2030-01-01", "gpt-4o", 3500),  # its alias
        ("gpt-4o-20300101", "gpt-4o", 3500),
        ("gpt-4o@20300101", "gpt-4o", 3500),
        ("gpt-4o-0101", "gpt-4o", 3500),
        ("gpt-4o-2030-01-01", "gpt-4", None),
        ("gpt-4o-2030-01-01-hd", "gpt-4o", None),
        ("gpt-4o-pro", "gpt-4o", None),
        ("gpt-4o-2030-01-01", "", None),
        ("gpt-5.5-chat-2030-01-01", "gpt-5.5-chat-latest", 8000),
    ],
)
def test_the_model_that_served_is_priced(price: Price, served: str, asked: str, micros: int | None) -> None:
    provider = "openai" if served.startswith("gpt") else "anthropic"
    cost = price(served, USAGE, provider, asked=asked)
    assert (cost.micros if cost.is_priced else None) == micros
