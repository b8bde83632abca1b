"""A file of newer prices, in genai-prices' format."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from aibridge_flask import config
from aibridge_flask.model import Usage
from aibridge_flask.pricing import PriceList
from tests.pricing.conftest import MakePrice

Write = Callable[..., str]
NEW: dict[str, Any] = {
    "id": "gpt-new",
    "match": {"or": [{"equals": "gpt-new"}, {"starts_with": "gpt-new-"}]},
    "prices": {
        "input_mtok": {"base": 0.1, "tiers": [{"start": 500, "price": 0.3}, {"start": 1000, "price": 0.7}]},
        "output_mtok": 0.2,
        "web_searches_kcount": 3,
        "unheard_of_mtok": 4,
    },
    "price_variants": [{"when": {"service_tier": "flex"}, "prices": {"output_mtok": 0.05}}],
}


def test_the_file_comes_before_the_library(make_price: MakePrice, write_prices: Write) -> None:
    path = write_prices(NEW, {**NEW, "id": "gpt-4o", "match": {"equals": "gpt-4o"}})
    price = make_price(prices_file=path)
    digest = sha256(Path(path).read_bytes()).hexdigest()
    for model in ("gpt-new", "gpt-new-2", "gpt-4o"):
        cost = price(model, Usage(100, 100, metadata={"web_search_requests": 1}), "openai")
        assert (cost.micros, cost.source) == (10 + 20 + 3000, "prices_file")
        assert digest.startswith(cost.version)
        assert len(cost.version) == 12
    cost = price("gpt-5", Usage(1000), "openai")
    assert (cost.micros, cost.source, cost.version) == (1250, "genai-prices", version("genai-prices"))


def test_settings_come_before_the_file(make_price: MakePrice, write_prices: Write) -> None:
    own = {"gpt-new": {"input": 9.0, "output": 9.0}}
    price = make_price(prices_file=write_prices(NEW), prices=own)
    cost = price("gpt-new", Usage(1, metadata={"web_search_requests": 1}), "openai")
    assert (cost.micros, cost.source) == (9 + 3000, "settings")


@pytest.mark.parametrize(("tokens", "tenths"), [(500, 1), (510, 3), (1000, 3), (1010, 7)])
def test_several_thresholds(make_price: MakePrice, write_prices: Write, tokens: int, tenths: int) -> None:
    price = make_price(prices_file=write_prices(NEW))
    assert price("gpt-new", Usage(tokens, 100), "openai").micros == tokens * tenths // 10 + 20


def test_a_tier_may_change_some_of_the_prices(make_price: MakePrice, write_prices: Write) -> None:
    price = make_price(prices_file=write_prices(NEW))
    assert price("gpt-new", Usage(100, 100), "openai", service_tier="flex").micros == 10 + 5


def test_the_factor_is_for_the_file_too(make_price: MakePrice, write_prices: Write) -> None:
    providers = [{"type": "openai", "price_factor": 0.5}]
    price = make_price(prices_file=write_prices(NEW), providers=providers)
    assert price("gpt-new", Usage(100, 100, metadata={"web_search_requests": 1}), "openai").micros == 1515


def test_a_kind_without_a_price_is_not_free(make_price: MakePrice, write_prices: Write) -> None:
    prices = {"input_mtok": 1}
    price = make_price(prices_file=write_prices({**NEW, "prices": prices, "price_variants": None}))
    assert price("gpt-new", Usage(100), "openai").micros == 100
    assert not price("gpt-new", Usage(100, 1), "openai").is_priced
    nothing = make_price(prices_file=write_prices({**NEW, "prices": {}}))
    assert not nothing("gpt-new", Usage(), "openai").is_priced


@pytest.mark.parametrize(
    ("keys", "micros"), [((), 200), (("cache_write",), 600), (("cache_write", "cache_write_5m"), 800)]
)
def test_a_kind_of_write_without_a_price_costs_what_is_next_to_it(
    make_price: MakePrice, write_prices: Write, keys: tuple[str, ...], micros: int
) -> None:
    prices = {"input_mtok": 1, **{f"{key}_mtok": 3 + 2 * n for n, key in enumerate(keys)}}
    price = make_price(prices_file=write_prices({**NEW, "prices": prices}))
    metadata = {"cache_ephemeral_5m_input": 100, "cache_ephemeral_1h_input": 100}
    assert price("gpt-new", Usage(0, 0, 0, 200, metadata), "openai").micros == micros


@pytest.mark.parametrize("bad", [-1, "NaN", "Infinity"])
def test_what_is_no_price_is_none(
    make_price: MakePrice, write_prices: Write, caplog: pytest.LogCaptureFixture, bad: object
) -> None:
    prices = {"input_mtok": bad, "output_mtok": 1}
    price = make_price(prices_file=write_prices({**NEW, "prices": prices}))
    assert not price("gpt-new", Usage(100), "openai").is_priced
    assert price("gpt-5", Usage(1000), "openai").micros == 1250


def test_a_pattern_that_cannot_be_matched_is_no_crash(
    make_price: MakePrice, write_prices: Write, caplog: pytest.LogCaptureFixture
) -> None:
    price = make_price(prices_file=write_prices({**NEW, "match": {"regex": "("}}))
    assert not price("gpt-new", Usage(100), "openai").is_priced
    assert "the price of 'gpt-new' cannot be read" in caplog.text


@pytest.mark.parametrize(
    "text",
    ["", "{", "{}", "[1]", '[{"id": "openai"}]', "[" * 100_000, '[{"models": [{"prices": []}]}]', "\udcff"],
    ids=["empty", "cut", "object", "numbers", "members", "deep", "models", "bytes"],
)
def test_a_wrong_file_is_one_warning_and_the_library_counts(
    make_price: MakePrice, tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    path = tmp_path / "data.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    price = make_price(prices_file=str(path))
    for _ in range(2):
        assert price("gpt-5", Usage(1000), "openai").source == "genai-prices"
        assert price("o3", Usage(1000), "openai").source == "genai-prices"
    (record,) = caplog.records
    assert record.getMessage().startswith(f"prices_file {path} is not used: ")
    assert "\n" not in record.getMessage()


def test_a_missing_file_is_noticed_when_it_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "later.json"
    prices = PriceList(config.load({"prices_file": str(path)}))
    assert caplog.records == []
    prices.load()
    prices.load()
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_what_the_file_says_of_other_things_is_passed_over(
    make_price: MakePrice, write_prices: Write, recwarn: pytest.WarningsRecorder
) -> None:
    path = Path(write_prices(NEW))
    (provider,) = json.loads(path.read_text())
    mappings = [{"path": "x", "dest": "unheard_of_tokens"}]
    provider["extractors"] = [{"root": "usage", "mappings": mappings}]
    path.write_text(json.dumps([provider]))
    assert make_price(prices_file=str(path))("gpt-new", Usage(100), "openai").source == "prices_file"
    assert [str(warning.message) for warning in recwarn] == []
