"""What answers say of their tokens, tier and region is recorded with its cost, also where they broke off."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.conftest import MakeApp, Start
from tests.support import bedrock
from tests.support.dialogue import ASK, ASK_BLOCKING, BLOCK, CHAT, DELTA, END, MESSAGES, START
from tests.support.server import PREFIX, Server, wait_until
from tests.support.upstream import (
    CLOSE,
    LAST_CHUNK,
    WAIT_FOR_CLOSE,
    Upstream,
    chunk,
    http_response,
    stream_head,
)

RESPONSES = "/openai/v1/responses"
PRICES = {"claude-sonnet-4-5": {"input": 3.0, "output": 15.0}, "gpt-5": {"input": 1.0, "output": 10.0}}
Json = dict[str, Any]


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app(prices=PRICES)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def newest(client: FlaskClient) -> Json:
    """The newest interception, once it has ended."""

    def read() -> Json:
        record: Json = client.get(f"{PREFIX}/interceptions?limit=1").get_json()["results"][0]
        return record

    wait_until(lambda: bool(read()["ended_at"]))
    return read()


def ask(
    client: FlaskClient, upstream: Upstream, path: str, answer: Json, model: str = "claude-sonnet-4-5"
) -> Json:
    upstream.enqueue(http_response(200, json.dumps(answer).encode()))
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "input": "hi"}
    assert client.post(f"{PREFIX}{path}", json=body, buffered=True).status_code == 200
    return newest(client)


def message(usage: Json, model: str = "claude-sonnet-4-5") -> Json:
    return {"id": "msg_1", "type": "message", "model": model, "content": [], "usage": usage}


def status_of(record: Json) -> tuple[int | None, str, str]:
    return record["cost_micros"], record["cost_status"], record["price_source"]


# What is kept


@pytest.mark.parametrize(
    ("path", "answer", "kept"),
    [
        (MESSAGES, message({"input_tokens": 1, "service_tier": "priority", "speed": "fast", "inference_geo": "us"}), ("priority", "fast", "us")),
        (MESSAGES, message({"input_tokens": 1, "service_tier": None, "speed": 7}), ("", "", "")),
        (CHAT, {"id": "c", "model": "gpt-5", "service_tier": "flex", "usage": {"prompt_tokens": 1}}, ("flex", "", "")),
        (RESPONSES, {"id": "r", "model": "gpt-5", "service_tier": "priority", "usage": {"input_tokens": 1}}, ("priority", "", "")),
    ],
)  # fmt: skip
def test_how_it_was_served_is_kept(
    client: FlaskClient, upstream: Upstream, path: str, answer: Json, kept: tuple[str, str, str]
) -> None:
    (usage,) = ask(client, upstream, path, answer)["token_usages"]
    assert (usage["service_tier"], usage["speed"], usage["inference_geo"]) == kept


def test_the_tier_that_a_stream_tells_last_counts(client: FlaskClient, upstream: Upstream) -> None:
    first = b'data: {"id":"c","model":"gpt-5","service_tier":"auto","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    last = b'data: {"id":"c","service_tier":"priority","choices":[],"usage":{"prompt_tokens":4,"completion_tokens":2}}\n\n'
    upstream.enqueue(stream_head(), chunk(first), chunk(last), chunk(b"data: [DONE]\n\n"), LAST_CHUNK)
    client.post(f"{PREFIX}{CHAT}", json={"model": "gpt-5", "stream": True, "messages": []}, buffered=True)
    record = newest(client)
    (usage,) = record["token_usages"]
    assert (usage["service_tier"], usage["cost_micros"], record["cost_micros"]) == ("priority", 4 + 20, 24)


def test_searches_of_openai_are_counted(client: FlaskClient, upstream: Upstream) -> None:
    calls = [
        {"type": "web_search_call", "id": str(n), "action": {"type": kind}}
        for n, kind in enumerate(["search", "open_page", "search", "find_in_page"])
    ]
    answer = {"id": "r", "model": "gpt-5", "output": calls, "usage": {"input_tokens": 10, "output_tokens": 1}}
    record = ask(client, upstream, RESPONSES, answer, "gpt-5")
    (usage,) = record["token_usages"]
    assert usage["metadata"] == {"web_search_requests": 2}
    assert status_of(record) == (10 + 10 + 2 * 10_000, "priced", "settings")
    found = {"type": "file_search_call", "id": "5", "queries": ["tin"]}
    record = ask(client, upstream, RESPONSES, {**answer, "output": [found]}, "gpt-5")
    assert record["token_usages"][0]["metadata"] == {"file_search_requests": 1}


@pytest.mark.parametrize("path", [RESPONSES, CHAT])
def test_uses_of_tools_that_xai_tells_are_counted(make_app: MakeApp, upstream: Upstream, path: str) -> None:
    """They are in `usage`; the items of the same searches count once."""
    told = {
        "web_search_calls": 3,
        "x_search_calls": 2,
        "x_posts_fetched": 6,
        "code_interpreter_calls": 1,
        "file_search_calls": 0,
    }
    words = ("input", "output") if path == RESPONSES else ("prompt", "completion")
    usage = {f"{word}_tokens": count for word, count in zip(words, (100, 10), strict=True)}
    usage |= {"total_tokens": 110, "server_side_tool_usage_details": told}
    searches = [{"type": "web_search_call", "id": str(n), "action": {"type": "search"}} for n in range(2)]
    answer = {"id": "r", "model": "grok-4", "output": searches, "choices": [], "usage": usage}
    record = ask(make_app().test_client(), upstream, path, answer, "grok-4")
    (kept,) = record["token_usages"]
    assert kept["metadata"] == {
        "web_search_requests": 3,
        "x_search_requests": 2,
        "x_posts_fetched": 6,
        "code_execution_requests": 1,
    }
    assert record["cost_micros"] == 100 * 3 + 10 * 15 + 3 * 5000 + 6 * 5000 + 1 * 5000


# What it is worth


def test_cached_writes_for_an_hour_and_searches_have_their_price(
    make_app: MakeApp, upstream: Upstream
) -> None:
    client = make_app().test_client()
    hour = {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 10_000}
    usage = {
        "input_tokens": 100,
        "output_tokens": 10,
        "cache_creation_input_tokens": 10_000,
        "cache_creation": hour,
    }
    record = ask(client, upstream, MESSAGES, message(usage))
    assert status_of(record) == (100 * 3 + 10 * 15 + 10_000 * 6, "priced", "genai-prices")
    assert record["price_version"]
    usage = {"input_tokens": 100, "output_tokens": 10, "server_tool_use": {"web_search_requests": 3}}
    assert ask(client, upstream, MESSAGES, message(usage))["cost_micros"] == 100 * 3 + 10 * 15 + 3 * 10_000


def test_the_sum_of_the_usages_is_the_interceptions_cost(client: FlaskClient, upstream: Upstream) -> None:
    iterations = [
        {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3500},
        {"type": "message", "input_tokens": 23_000, "output_tokens": 1000},
    ]
    record = ask(
        client,
        upstream,
        MESSAGES,
        message({"input_tokens": 23_000, "output_tokens": 1000, "iterations": iterations}),
    )
    costs = [usage["cost_micros"] for usage in record["token_usages"]]
    assert sorted(costs) == [23_000 * 3 + 1000 * 15, 180_000 * 3 + 3500 * 15]
    assert status_of(record) == (sum(costs), "priced", "settings")


@pytest.mark.parametrize(
    ("usage", "model", "expected"),
    [
        ({"input_tokens": 5}, "nobody-knows-me", (None, "unpriced", "")),
        ({"input_tokens": 5, "iterations": [{"type": "advisor_message", "model": "nobody-knows-me", "input_tokens": 9}]}, "claude-sonnet-4-5", (15, "partly", "settings")),
        ({"input_tokens": 0, "output_tokens": 0}, "claude-sonnet-4-5", (None, "", "")),
        ({}, "nobody-knows-me", (None, "", "")),
    ],
)  # fmt: skip
def test_what_has_no_price_is_not_free(
    client: FlaskClient, upstream: Upstream, usage: Json, model: str, expected: tuple[int | None, str, str]
) -> None:
    record = ask(client, upstream, MESSAGES, message(usage, model), model)
    assert status_of(record) == expected
    assert all(
        (part["cost_micros"] is None) == (part["model"] == "nobody-knows-me")
        for part in record["token_usages"]
    )


def test_a_copilot_model_never_has_the_list_price_by_accident(make_app: MakeApp, upstream: Upstream) -> None:
    client = make_app().test_client()
    answer = {"id": "c", "model": "gpt-5", "usage": {"prompt_tokens": 4, "completion_tokens": 2}}
    upstream.enqueue(http_response(200, json.dumps(answer).encode()))
    headers = {"Authorization": "Bearer tid=0123456789"}
    client.post(
        f"{PREFIX}/copilot/chat/completions",
        json={"model": "gpt-5", "messages": []},
        headers=headers,
        buffered=True,
    )
    assert status_of(newest(client)) == (None, "unpriced", "")


def test_a_failed_request_costs_nothing_and_is_not_unpriced(client: FlaskClient, upstream: Upstream) -> None:
    upstream.enqueue(
        http_response(400, b'{"type":"error","error":{"type":"invalid_request_error","message":"no"}}')
    )
    client.post(f"{PREFIX}{MESSAGES}", data=ASK_BLOCKING, buffered=True)
    assert status_of(newest(client)) == (None, "", "")


# What is not whole


def test_a_stream_that_breaks_off_costs_its_input_and_what_was_seen(
    client: FlaskClient, upstream: Upstream
) -> None:
    upstream.enqueue(stream_head(), chunk(START), chunk(BLOCK), *[chunk(DELTA)] * 400, CLOSE)
    with pytest.raises(ConnectionError):
        client.post(f"{PREFIX}{MESSAGES}", data=ASK, buffered=True)
    record = newest(client)
    (usage,) = record["token_usages"]
    assert usage["input_tokens"] == 3
    assert 200 <= usage["output_tokens"] <= 220  # 800 bytes of text
    assert status_of(record) == (3 * 3 + usage["output_tokens"] * 15, "estimated", "settings")


def test_a_stream_that_tells_no_usage_before_it_breaks_off_is_estimated(
    client: FlaskClient, upstream: Upstream
) -> None:
    text = b'data: {"id":"c","model":"gpt-5","choices":[{"index":0,"delta":{"content":"12345678"}}]}\n\n'
    upstream.enqueue(stream_head(), *[chunk(text)] * 50, CLOSE)
    body = json.dumps(
        {"model": "gpt-5", "stream": True, "messages": [{"role": "user", "content": "x" * 4000}]}
    )
    with pytest.raises(ConnectionError):
        client.post(f"{PREFIX}{CHAT}", data=body, buffered=True)
    record = newest(client)
    (usage,) = record["token_usages"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (len(body) // 4, 50 * 8 // 4)
    assert status_of(record) == (len(body) // 4 + 100 * 10, "estimated", "settings")


def test_a_client_that_leaves_after_the_end_has_seen_all(client: FlaskClient, upstream: Upstream) -> None:
    upstream.enqueue(stream_head(), chunk(START + END), LAST_CHUNK)
    client.post(f"{PREFIX}{MESSAGES}", data=ASK, buffered=True)
    assert status_of(newest(client)) == (3 * 3 + 7 * 15, "priced", "settings")


def test_a_refusal_in_the_middle_of_a_request_is_not_billed(client: FlaskClient, upstream: Upstream) -> None:
    upstream.enqueue(
        http_response(529, b'{"type":"error","error":{"type":"overloaded_error","message":"later"}}')
    )
    client.post(f"{PREFIX}{MESSAGES}", data=ASK, buffered=True)
    record = newest(client)
    assert (record["token_usages"], record["cost_status"]) == ([], "")


def test_bedrock_is_priced_by_its_profile(make_app: MakeApp, upstream: Upstream) -> None:
    settings = bedrock.settings(upstream.url)
    profile = settings["aws"]["model"]  # type: ignore[index]
    app = make_app(providers=[settings], prices={profile: {"input": 7.0, "output": 70.0}})
    upstream.enqueue(
        http_response(200, json.dumps(message({"input_tokens": 10, "output_tokens": 1})).encode())
    )
    app.test_client().post(f"{PREFIX}/bedrock/v1/messages", data=ASK_BLOCKING, buffered=True)
    assert newest(app.test_client())["cost_micros"] == 10 * 7 + 70


def test_a_client_that_leaves_pays_for_what_it_has_seen(server: Server, upstream: Upstream) -> None:
    upstream.enqueue(stream_head(), chunk(START), chunk(BLOCK), *[chunk(DELTA)] * 400, WAIT_FOR_CLOSE)
    client = server.connect()
    client.send("POST", MESSAGES, ASK)
    _, headers = client.head()
    for _ in range(3):
        client.chunk()
    client.close()
    record = server.record(headers["x-aibridge-interception-id"])
    assert (record["error_type"], record["cost_status"]) == ("client_closed", "estimated")
    assert record["cost_micros"] > 3 * 3 + 15


def test_a_client_that_leaves_before_the_answer_pays_for_its_question(
    server: Server, upstream: Upstream
) -> None:
    upstream.enqueue(WAIT_FOR_CLOSE)
    client = server.connect()
    client.send("POST", MESSAGES, ASK)
    upstream.wait_for_requests(1)
    client.close()
    wait_until(lambda: server.newest()["error_type"] == "client_closed")
    record = server.newest()
    assert record["token_usages"][0]["input_tokens"] == len(ASK) // 4
    assert (record["cost_micros"], record["cost_status"]) == (len(ASK) // 4 * 3, "estimated")


def test_the_question_that_a_killed_worker_has_sent_costs_its_input(start: Start, upstream: Upstream) -> None:
    server = start(prices=PRICES)
    upstream.enqueue(WAIT_FOR_CLOSE)
    client = server.connect()
    client.send("POST", MESSAGES, ASK)
    upstream.wait_for_requests(1)
    (worker,) = server.workers()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: server.workers() not in ([], [worker]))
    server.wait_ready()
    wait_until(lambda: server.newest()["error_type"] == "interrupted")
    record = server.newest()
    (usage,) = record["token_usages"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (len(ASK) // 4, 0)
    assert status_of(record) == (len(ASK) // 4 * 3, "estimated", "settings")
