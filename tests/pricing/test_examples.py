"""The examples of docs/cost.md are true."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from aibridge_flask import config
from aibridge_flask.model import Usage
from tests.pricing.conftest import Price

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "cost.md").read_text()
SONNET = "anthropic.claude-sonnet-4-5-20250929-v1:0"
LONG = Usage(200_000, 1000, 100_000)
WRITTEN = Usage(100, 10, 0, 10_000, {"cache_ephemeral_1h_input": 10_000, "web_search_requests": 3})


@pytest.mark.parametrize(
    ("amount", "model", "provider", "usage", "terms"),
    [
        ("90,450", "claude-sonnet-4-5", "anthropic", WRITTEN, {}),
        ("2,145,000", "gpt-5.5", "openai", LONG, {}),
        ("2,700,000", "gpt-5.5", "openai", LONG, {"service_tier": "priority"}),
        ("4,500", "grok-4", "openai", Usage(1000, 100), {}),
        ("14,500", "grok-4", "openai", Usage(1000, 100, metadata={"web_search_requests": 2}), {}),
        ("4,500", "claude-sonnet-4-5", "bedrock", Usage(1000, 100), {"profile": f"global.{SONNET}"}),
        ("4,950", "claude-sonnet-4-5", "bedrock", Usage(1000, 100), {"profile": f"us.{SONNET}"}),
    ],
)
def test_an_example(
    price: Price, amount: str, model: str, provider: str, usage: Usage, terms: dict[str, str]
) -> None:
    assert amount in PAGE
    assert price(model, usage, provider, **terms).micros == int(amount.replace(",", ""))


def test_the_settings_of_the_page_are_valid() -> None:
    text = PAGE.partition("```toml")[2].partition("```")[0]
    (own,) = config.load(tomllib.loads(text)).prices.values()
    assert (own.cache_read, own.cache_write, own.cache_write_1h, own.web_search) == (0.2, 0.2, 0.2, (5.0,))


def test_scalar_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIBRIDGE_PRICES_FILE", "/srv/data.json")
    settings = config.load({})
    assert settings.prices_file == "/srv/data.json"
    assert {provider.price_factor for provider in settings.providers} == {1.0}
