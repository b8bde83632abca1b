"""Prices usages by a price list of given settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from aibridge_flask import config
from aibridge_flask.model import Usage
from aibridge_flask.pricing import Billed, Cost, PriceList

NOON = datetime(2026, 11, 27, 12, 10, 30, tzinfo=UTC)
Price = Callable[..., Cost]
MakePrice = Callable[..., Price]


def bill(model: str, usage: Usage, provider: str = "anthropic", **terms: Any) -> Billed:
    terms = {"asked": "", "provider_name": provider, "at": NOON, **terms}
    return Billed(usage=usage, model=model, provider=provider, **terms)


@pytest.fixture(scope="session")
def price() -> Price:
    """Prices without any settings: `price(model, usage, provider, **terms)`."""
    prices = PriceList(config.load({}))
    return lambda *parts, **terms: prices.cost(bill(*parts, **terms))


@pytest.fixture
def make_price() -> MakePrice:
    """Returns such a function for a tree of settings."""

    def make(**tree: Any) -> Price:
        prices = PriceList(config.load(tree))
        return lambda *parts, **terms: prices.cost(bill(*parts, **terms))

    return make


@pytest.fixture
def write_prices(tmp_path: Path) -> Callable[..., str]:
    """Writes a file of genai-prices' format with models of a provider. Returns its path."""

    def write(*models: dict[str, Any], id: str = "openai") -> str:
        provider = {"id": id, "name": id, "api_pattern": "https://example\\.com", "models": list(models)}
        (tmp_path / "data.json").write_text(json.dumps([provider]))
        return str(tmp_path / "data.json")

    return write
