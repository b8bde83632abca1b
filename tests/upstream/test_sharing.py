"""Two servers with one PostgreSQL and one Redis share cooldowns, breakers and records."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis as client_library

from tests.conftest import Start
from tests.support.redis import RedisServer
from tests.support.server import Server, wait_until
from tests.support.upstream import ReceivedRequest, Upstream, http_response

KEYS = ("sk-ant-a-0123456789aaaa", "sk-ant-b-0123456789bbbb")
MESSAGES = "/anthropic/v1/messages"
REDIS_TIMEOUT_SECONDS = 1.0  # what a request would take that waited for a silent Redis


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    yield server
    server.halt()


@pytest.fixture
def database() -> str:
    return "postgresql"


@pytest.fixture
def pair(start: Start, upstream: Upstream, redis: RedisServer, database_url: str) -> tuple[Server, Server]:
    """Each has its own base URL at the upstream: only requests of the first are refused."""
    upstream.handler = respond

    def server(path: str) -> Server:
        provider = {
            "type": "anthropic",
            "base_url": f"{upstream.url}/{path}",
            "keys": [{"value": key} for key in KEYS],
            "circuit_breaker": {"failure_threshold": 2, "timeout": 300.0},
        }
        return start(providers=[provider], redis_url=redis.url, database_url=database_url)

    return server("first"), server("second")


def respond(received: ReceivedRequest) -> list[bytes]:
    """For the first server the model `limited` accepts the second key only, and `down` always fails."""
    model, is_first = json.loads(received.body)["model"], received.target.startswith("/first")
    if is_first and model == "down":
        return [http_response(503, b"{}")]
    if is_first and model == "limited" and received.header("x-api-key") == KEYS[0]:
        return [http_response(429, b"{}", "Retry-After: 300")]
    return [http_response(200, b'{"id":"msg_1","usage":{"input_tokens":1,"output_tokens":1}}')]


def ask(server: Server, model: str) -> tuple[int, str]:
    """Returns the status and the interception's id."""
    client = server.connect()
    client.send("POST", MESSAGES, json.dumps({"model": model}).encode())
    status, headers = client.head()
    client.body(headers)
    client.close()
    return status, headers["x-aibridge-interception-id"]


def used_keys(server: Server, upstream: Upstream, model: str) -> list[str]:
    """The keys with which one request reached the upstream."""
    before = len(upstream.requests)
    ask(server, model)
    return [str(received.header("x-api-key")) for received in upstream.requests[before:]]


def test_a_breaker_that_opens_on_one_is_open_on_the_other(
    pair: tuple[Server, Server], upstream: Upstream
) -> None:
    first, second = pair
    assert used_keys(second, upstream, "down") == [KEYS[0]]
    assert [ask(first, "down")[0] for _ in range(3)] == [503] * 3
    assert used_keys(first, upstream, "down") == []
    wait_until(lambda: used_keys(second, upstream, "down") == [])
    assert ask(second, "down")[0] == 503
    assert ask(second, "up")[0] == 200


def test_a_key_that_cools_down_on_one_cools_down_on_the_other(
    pair: tuple[Server, Server], upstream: Upstream
) -> None:
    first, second = pair
    assert used_keys(second, upstream, "limited") == [KEYS[0]]
    assert used_keys(first, upstream, "limited") == [*KEYS]
    assert used_keys(first, upstream, "limited") == [KEYS[1]]
    wait_until(lambda: used_keys(second, upstream, "limited") == [KEYS[1]])
    assert used_keys(second, upstream, "else") == [KEYS[0]]


def test_both_list_the_records_of_both(pair: tuple[Server, Server], upstream: Upstream) -> None:
    ids = {ask(server, "up")[1] for server in pair for _ in range(10)}
    for server in pair:
        # The other's come when they are applied.
        wait_until(lambda server=server: len(list_records(server)) >= len(ids))
        wait_until(lambda server=server: all(record["ended_at"] for record in list_records(server)))
        assert {record["id"] for record in list_records(server)} == ids


def list_records(server: Server) -> list[dict[str, object]]:
    records: list[dict[str, object]] = server.get("/interceptions?limit=1000")["results"]
    return records


OUTAGES: dict[str, tuple[Callable[[RedisServer], None], Callable[[RedisServer], None]]] = {
    "stopped": (RedisServer.halt, RedisServer.resume),
    "silent": (RedisServer.pause, RedisServer.unpause),
    "password": (lambda redis: redis.set_password("new"), lambda redis: redis.remove_password("new")),
}


@pytest.mark.parametrize("outage", OUTAGES)
def test_without_redis_each_uses_its_own_state(
    pair: tuple[Server, Server], upstream: Upstream, redis: RedisServer, outage: str
) -> None:
    first, second = pair
    begin, end = OUTAGES[outage]
    ask(first, "up")
    ask(second, "up")
    begin(redis)
    assert min(seconds_of_a_request(first) for _ in range(3)) < REDIS_TIMEOUT_SECONDS
    assert [ask(first, "down")[0] for _ in range(2)] == [503] * 2
    assert used_keys(first, upstream, "down") == []
    wait_until(lambda: "Redis is away" in first.log.read_text())
    assert used_keys(second, upstream, "down") == [KEYS[0]]
    end(redis)
    wait_until(lambda: "Redis is back" in first.log.read_text())
    wait_until(lambda: used_keys(second, upstream, "down") == [])
    assert first.log.read_text().count("Redis is away") == 1


def seconds_of_a_request(server: Server) -> float:
    start = time.monotonic()
    assert ask(server, "up")[0] == 200
    return time.monotonic() - start


def test_a_redis_that_was_restarted_gets_the_state_again(
    pair: tuple[Server, Server], upstream: Upstream, redis: RedisServer
) -> None:
    first, _ = pair
    ask(first, "limited")
    with client_library.Redis.from_url(redis.url, decode_responses=True) as client:
        wait_until(lambda: client.exists("aibridge:board") == 1)
        redis.halt()
        redis.resume()
        wait_until(lambda: any("limited" in name for name in client.hgetall("aibridge:board")))


def test_deployments_with_different_prefixes_do_not_share(
    start: Start, upstream: Upstream, redis: RedisServer
) -> None:
    upstream.handler = lambda received: [http_response(429, b"{}", "Retry-After: 300")]
    keys = [{"value": key} for key in KEYS]
    provider = {"type": "anthropic", "base_url": upstream.url, "keys": keys}
    one, other = (
        start(providers=[provider], redis_url=redis.url, redis_prefix=prefix) for prefix in ("one", "other")
    )
    with client_library.Redis.from_url(redis.url) as client:
        assert used_keys(one, upstream, "m") == [*KEYS]
        wait_until(lambda: client.hlen("one:board") == 2)
        assert used_keys(other, upstream, "n") == [*KEYS]
        wait_until(lambda: client.hlen("other:board") == 2)  # it has looked since
        assert used_keys(other, upstream, "m") == [*KEYS]
        assert sorted(client.keys()) == [b"one:board", b"other:board"]


def test_redis_holds_no_key_material_and_entries_expire(
    pair: tuple[Server, Server], upstream: Upstream, redis: RedisServer
) -> None:
    first, _ = pair
    with client_library.Redis.from_url(redis.url, decode_responses=True) as client:
        client.hset("aibridge:board", '["key","anthropic","old","m"]', '["rate_limited",1.0,2.0]')
        client.hset("aibridge:board", "junk", "junk")
        ask(first, "limited")
        wait_until(lambda: any("limited" in name for name in client.hgetall("aibridge:board")))
        wait_until(lambda: not any("old" in name for name in client.hgetall("aibridge:board")))
        stored = json.dumps(client.hgetall("aibridge:board"))
    assert not any(part in stored for key in KEYS for part in (key, key[7:17]))


@pytest.mark.parametrize(
    "text", ["[1e999,1,1]", '["x",1' + "0" * 400 + ",2]", "[" * 100_000, "\xff".encode("latin-1")]
)
def test_an_odd_entry_in_redis_is_deleted(
    start: Start, upstream: Upstream, redis: RedisServer, text: str | bytes
) -> None:
    with client_library.Redis.from_url(redis.url) as client:
        client.hset("aibridge:board", '["key"]', text)
        start(redis_url=redis.url)
        wait_until(lambda: client.exists("aibridge:board") == 0)
