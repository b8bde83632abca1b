"""Two servers with one PostgreSQL and one Redis: what one of them knows, the other does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as client_library

from tests.conftest import Start
from tests.support.redis import RedisServer
from tests.support.server import Server, wait_until
from tests.support.upstream import ReceivedRequest, Upstream, http_response

KEYS = ("sk-ant-a-0123456789aaaa", "sk-ant-b-0123456789bbbb")
MESSAGES = "/anthropic/v1/messages"


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
    """Each comes to the upstream by a way of its own: only the first meets what it tells."""
    upstream.handler = scripted

    def server(way: str) -> Server:
        provider = {
            "type": "anthropic",
            "base_url": f"{upstream.url}/{way}",
            "keys": [{"value": key} for key in KEYS],
            "circuit_breaker": {"failure_threshold": 2, "timeout": 300.0},
        }
        return start(providers=[provider], redis_url=redis.url, database_url=database_url)

    return server("first"), server("second")


def scripted(heard: ReceivedRequest) -> list[bytes]:
    """To the first server: `limited` is for the second key alone, and `down` for nobody."""
    model, first = json.loads(heard.body)["model"], heard.target.startswith("/first")
    if first and model == "down":
        return [http_response(503, b"{}")]
    if first and model == "limited" and heard.header("x-api-key") == KEYS[0]:
        return [http_response(429, b"{}", "Retry-After: 300")]
    return [http_response(200, b'{"id":"msg_1","usage":{"input_tokens":1,"output_tokens":1}}')]


def ask(server: Server, model: str) -> tuple[int, str]:
    """Status, and the interception's id."""
    client = server.connect()
    client.send("POST", MESSAGES, json.dumps({"model": model}).encode())
    status, headers = client.head()
    client.body(headers)
    client.close()
    return status, headers["x-aibridge-interception-id"]


def asked(server: Server, upstream: Upstream, model: str) -> list[str]:
    """The keys with which one request reached the upstream."""
    before = len(upstream.requests)
    ask(server, model)
    return [str(heard.header("x-api-key")) for heard in upstream.requests[before:]]


def test_a_breaker_that_opens_on_one_is_open_on_the_other(
    pair: tuple[Server, Server], upstream: Upstream
) -> None:
    one, other = pair
    assert asked(other, upstream, "down") == [KEYS[0]]
    assert [ask(one, "down")[0] for _ in range(3)] == [503] * 3
    assert asked(one, upstream, "down") == []
    wait_until(lambda: asked(other, upstream, "down") == [])
    assert ask(other, "down")[0] == 503
    assert ask(other, "up")[0] == 200


def test_a_key_that_rests_on_one_rests_on_the_other(pair: tuple[Server, Server], upstream: Upstream) -> None:
    one, other = pair
    assert asked(other, upstream, "limited") == [KEYS[0]]
    assert asked(one, upstream, "limited") == [*KEYS]
    assert asked(one, upstream, "limited") == [KEYS[1]]
    wait_until(lambda: asked(other, upstream, "limited") == [KEYS[1]])
    assert asked(other, upstream, "else") == [KEYS[0]]


def test_records_of_both_add_up(pair: tuple[Server, Server], upstream: Upstream) -> None:
    ids = {ask(server, "up")[1] for server in pair for _ in range(10)}
    for server in pair:
        wait_until(lambda server=server: all(one["ended_at"] for one in listed(server)))
        assert {one["id"] for one in listed(server)} == ids


def listed(server: Server) -> list[dict[str, object]]:
    found: list[dict[str, object]] = server.get("/interceptions?limit=1000")["results"]
    return found


def test_without_redis_each_goes_by_what_it_knows(
    pair: tuple[Server, Server], upstream: Upstream, redis: RedisServer
) -> None:
    one, other = pair
    ask(one, "up")
    ask(other, "up")
    redis.halt()
    assert [ask(one, "down")[0] for _ in range(2)] == [503] * 2
    assert asked(one, upstream, "down") == []
    wait_until(lambda: "Redis is away" in one.log.read_text())
    assert asked(other, upstream, "down") == [KEYS[0]]
    redis.resume()
    wait_until(lambda: "Redis is back" in one.log.read_text())
    wait_until(lambda: asked(other, upstream, "down") == [])
    assert one.log.read_text().count("Redis is away") == 1


def test_what_stands_in_redis_gives_no_key_away_and_goes_when_it_is_over(
    pair: tuple[Server, Server], upstream: Upstream, redis: RedisServer
) -> None:
    one, _ = pair
    with client_library.Redis.from_url(redis.url, decode_responses=True) as client:
        client.hset("aibridge:board", '["key","anthropic","old","m"]', '["rate_limited",1.0,2.0]')
        client.hset("aibridge:board", "junk", "junk")
        ask(one, "limited")
        wait_until(lambda: any("limited" in name for name in client.hgetall("aibridge:board")))
        wait_until(lambda: not any("old" in name for name in client.hgetall("aibridge:board")))
        stored = json.dumps(client.hgetall("aibridge:board"))
    assert not any(part in stored for key in KEYS for part in (key, key[7:17]))
