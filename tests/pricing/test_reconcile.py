"""`aibridge reconcile` sets what is recorded beside the bill, whose documented shapes are scripted."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner, Result

from aibridge_flask import config
from aibridge_flask.cli import aibridge
from aibridge_flask.errors import ConfigError
from aibridge_flask.model import Asked, Usage
from aibridge_flask.pricing import PriceList
from aibridge_flask.records import database as databases
from aibridge_flask.records.events import Ended, Event, Started, TokenUsage
from aibridge_flask.records.store import Store
from tests.conftest import BOTH_DATABASES
from tests.support.server import toml
from tests.support.upstream import ReceivedRequest, Upstream, http_response

pytestmark = BOTH_DATABASES
ADMIN_KEY = "sk-ant-admin-canary-0123456789"
PRICES = {"m": {"input": 1.0, "output": 2.0}, "gpt-5": {"input": 1.0, "output": 2.0}}
Json = dict[str, Any]
Run = Callable[..., Result]


def interception(
    id: str,
    day: int,
    model: str,
    provider: str,
    kind: str = "centralized",
    hour: int = 0,
    is_estimated: bool = False,
) -> list[Event]:
    at = datetime(2026, 11, day, hour, tzinfo=UTC)
    usage = TokenUsage(
        id, 0, "r", model, Usage(1_000_000, 500_000), at, asked=Asked(model, provider, provider)
    )
    start = Started(
        id, "ann", at, provider=provider, provider_name=provider, model=model, credential_kind=kind
    )
    return [start, usage, Ended(id, at, status_code=200, usages=(usage,), is_estimated=is_estimated)]


@pytest.fixture
def run(database_url: str, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    providers = [
        {"type": "anthropic", "base_url": upstream.url, "admin_key": {"value": ADMIN_KEY}},
        {"type": "openai", "base_url": f"{upstream.url}/v1", "admin_key": {"value": ADMIN_KEY}},
        {"type": "anthropic", "name": "keyless", "base_url": upstream.url},
        {"type": "copilot"},
    ]
    path = tmp_path / "aibridge.toml"
    path.write_text(f"database_url = {toml(database_url)}\nproviders = {toml(providers)}\n")
    monkeypatch.setenv("AIBRIDGE_CONFIG", str(path))
    store = Store(databases.connect(database_url), PriceList(config.load({"prices": PRICES})))
    store.open()
    store.position("log")
    events = [
        *interception("1", 1, "m", "anthropic"),
        *interception("2", 1, "m", "anthropic", hour=23),
        *interception("3", 2, "m", "anthropic", is_estimated=True),
        *interception("4", 2, "nobody-knows-me", "anthropic"),
        *interception("5", 3, "m", "anthropic"),
        *interception("6", 3, "m", "anthropic", kind="byok"),
        *interception("7", 1, "gpt-5", "openai"),
    ]
    store.apply("log", events, 0, 1)
    store.close()
    return lambda *options: CliRunner().invoke(aibridge, ["reconcile", *options])


def anthropic_bucket(day: int, *results: Json) -> Json:
    return {
        "starting_at": f"2026-11-{day:02}T00:00:00Z",
        "ending_at": f"2026-11-{day + 1:02}T00:00:00Z",
        "results": [*results],
    }


def result(amount: str, model: str | None = "m", **members: object) -> Json:
    described = {"currency": "USD", "workspace_id": None, "description": "Usage", "cost_type": "tokens"}
    return {**described, "amount": amount, "model": model, **members}


def query(received: ReceivedRequest) -> dict[str, list[str]]:
    return parse_qs(urlsplit(received.target).query)


def test_the_bill_of_anthropic_is_compared_day_by_day(run: Run, upstream: Upstream) -> None:
    """Amounts are cents as decimal texts, on as many pages as there are."""
    pages: list[Json] = [
        {"data": [anthropic_bucket(1, result("150.5"), result("249.5"))], "has_more": True, "next_page": "page_2"},
        {"data": [anthropic_bucket(2, result("100"), result("1000", None, description="Web Search Usage", cost_type="web_search"))], "has_more": False, "next_page": None},
    ]  # fmt: skip
    for page in pages:
        upstream.enqueue(http_response(200, json.dumps(page).encode()))
    told: Json = json.loads(run("--provider", "anthropic", "--month", "2026-11", "--json").output)
    lines = [
        (line["day"], line["model"], line["ours_micros"], line["theirs_micros"], line["why"])
        for line in told["lines"]
    ]
    assert lines == [
        ("2026-11-01", "m", 4_000_000, 4_000_000, ""),
        ("2026-11-02", "Web Search Usage", 0, 10_000_000, "not seen here: fees that the bill sets apart, or use without the bridge"),
        ("2026-11-02", "m", 2_000_000, 1_000_000, "1 estimated here"),
        ("2026-11-02", "nobody-knows-me", 0, 0, ""),
        ("2026-11-03", "m", 2_000_000, 0, told["lines"][-1]["why"]),
    ]  # fmt: skip
    assert told["lines"][-1]["why"]
    assert (told["ours_micros"], told["theirs_micros"], told["difference_micros"]) == (
        8_000_000,
        15_000_000,
        7_000_000,
    )
    first, second = upstream.requests
    assert urlsplit(first.target).path == "/v1/organizations/cost_report"
    assert query(first)["starting_at"] + query(first)["ending_at"] == [
        "2026-11-01T00:00:00Z",
        "2026-12-01T00:00:00Z",
    ]
    assert (query(first)["group_by[]"], query(second)["page"]) == (["description"], ["page_2"])
    assert (first.header("x-api-key"), first.header("anthropic-version")) == (ADMIN_KEY, "2023-06-01")


def test_the_bill_of_openai_is_in_dollars_by_line_item(run: Run, upstream: Upstream) -> None:
    def line(value: float, item: str) -> Json:
        amount = {"value": value, "currency": "usd"}
        return {
            "object": "organization.costs.result",
            "amount": amount,
            "line_item": item,
            "project_id": None,
        }

    start = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp())
    results = [line(0.9, "gpt-5, input"), line(0.9000001, "gpt-5, output")]
    bucket = {"object": "bucket", "start_time": start, "end_time": start + 86_400, "results": results}
    page = {"object": "page", "data": [bucket], "has_more": False, "next_page": None}
    upstream.enqueue(http_response(200, json.dumps(page).encode()))
    output = run("--provider", "openai", "--month", "2026-11").output
    assert [line.split(maxsplit=5) for line in output.splitlines()[1:]] == [
        [
            "2026-11-01",
            "gpt-5",
            "2.000000",
            "1.800000",
            "-0.200000",
            "a discount (price_factor), or an old price here",
        ],
        ["all", "2.000000", "1.800000", "-0.200000"],
    ]
    (received,) = upstream.requests
    assert urlsplit(received.target).path == "/v1/organization/costs"
    assert (query(received)["start_time"], query(received)["group_by"]) == ([str(start)], ["line_item"])
    assert received.header("authorization") == f"Bearer {ADMIN_KEY}"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (http_response(401, b'{"error":{"message":"invalid key sk-ant-admin-canary"}}'), "refuses the bill with status 401"),
        (http_response(302, b"", "Location: http://elsewhere.test/"), "refuses the bill with status 302"),
        (http_response(200, b"<html>"), "not in the documented shape"),
        (http_response(200, b'{"data":[{"starting_at":"x","results":[]}],"has_more":false}'), "not in the documented shape"),
        (http_response(200, b'{"data":[{"starting_at":"2026-11-01T00:00:00Z","results":[{"amount":"many"}]}],"has_more":false}'), "not in the documented shape"),
    ],
)  # fmt: skip
def test_a_bill_that_cannot_be_had_is_one_line(
    run: Run, upstream: Upstream, answer: bytes, message: str
) -> None:
    upstream.enqueue(answer)
    told = run("--provider", "anthropic", "--month", "2026-11")
    assert (told.exit_code, told.output.count("\n")) == (1, 1)
    assert message in told.output
    assert "canary" not in told.output


@pytest.mark.parametrize(
    "options", [["--provider", "nobody", "--month", "2026-11"], ["--provider", "anthropic", "--month", "11"], ["--month", "2026-11"]]
)  # fmt: skip
def test_a_wrong_call_exits_with_2(run: Run, upstream: Upstream, options: list[str]) -> None:
    assert run(*options).exit_code == 2
    assert upstream.requests == []


@pytest.mark.parametrize(("name", "message"), [("keyless", "admin_key"), ("copilot", "no bill")])
def test_a_provider_without_a_bill_is_named(run: Run, name: str, message: str) -> None:
    told = run("--provider", name, "--month", "2026-11")
    assert isinstance(told.exception, ConfigError)
    assert message in str(told.exception)
