"""Limits under many requests at once, over several workers and hosts, and after a worker's death."""

from __future__ import annotations

import hmac
import json
import os
import random
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conftest import Start
from tests.support.dialogue import BLOCK, DELTA, END, MESSAGES, START
from tests.support.postgres import Postgres
from tests.support.records import locked
from tests.support.server import TIMEOUT_SECONDS, Server, wait_until
from tests.support.streams import open_streams
from tests.support.upstream import LAST_CHUNK, ReceivedRequest, Upstream, chunk, http_response, stream_head

PRICES = {"claude-*": {"input": 10.0, "output": 10.0}}
ASK = json.dumps(
    {"model": "claude-x", "max_tokens": 4000, "messages": [{"role": "user", "content": "hi " * 1000}]}
).encode()


def answer(received: ReceivedRequest) -> tuple[bytes]:
    """Uses about two cents' worth of tokens."""
    usage = {"input_tokens": 800, "output_tokens": random.randint(1100, 1300)}
    return (
        http_response(
            200, json.dumps({"id": "m", "model": "claude-x", "content": [], "usage": usage}).encode()
        ),
    )


def used(server: Server, name: str = "l") -> list[dict[str, Any]]:
    (limit,) = (each for each in server.get("/limits")["results"] if each["name"] == name)  # type: ignore[attr-defined]
    found: list[dict[str, Any]] = limit["used"]
    return found


def ask_all(servers: list[Server], count: int, again_at: int = 0) -> Counter[int]:
    """Asks so many times at the same moment, and again while the status is `again_at`; returns the statuses."""
    ready = threading.Barrier(count, timeout=TIMEOUT_SECONDS)

    def ask(number: int) -> int:
        client = servers[number % len(servers)].connect()
        ready.wait()
        status = again_at
        while status == again_at:
            client.send("POST", MESSAGES, ASK)
            status, headers = client.head()
            client.body(headers)
        return status

    with ThreadPoolExecutor(count) as pool:
        return Counter(pool.map(ask, range(count)))


def limit(scope: object = "everyone", **members: object) -> dict[str, object]:
    return {"name": "l", "scope": scope, "per": "month", **members}


def test_two_hundred_requests_at_once_do_not_overspend(start: Start, upstream: Upstream) -> None:
    upstream.handler = answer
    server = start(prices=PRICES, limit=[limit(usd=1.2)], environ={"AIBRIDGE_WORKERS": "2"})
    for _ in range(10):  # twenty cents, from which the estimates are learnt
        ask_all([server], 1)
    statuses = ask_all([server], 200)
    assert statuses.keys() == {200, 429}
    while ask_all([server], 1)[200]:  # those that were refused came while others held what is left
        statuses[200] += 1
    wait_until(lambda: used(server)[0]["held"] == 0)
    spent = used(server)[0]["spent"]
    assert spent <= 1.05 * 1_200_000
    assert spent >= 1_200_000 - 2 * 25_000
    assert len(upstream.requests) == statuses[200] + 10


def test_two_hosts_on_one_database_have_one_limit(
    start: Start, upstream: Upstream, postgres: Postgres
) -> None:
    """With limits that overlap, in every order."""
    upstream.handler = answer
    limits = [
        limit(requests=50),
        limit({"actor": "*"}, requests=60) | {"name": "b"},
        limit(usd=100) | {"name": "c"},
    ]
    url = postgres.new_url()
    refuse = {"on_database_down": "refuse"}  # a busy machine may take longer than a quarter of a second
    servers = [start(prices=PRICES, limit=limits, limits=refuse, database_url=url) for _ in range(2)]
    statuses = ask_all(servers, 120, again_at=503)
    assert statuses == {200: 50, 429: 70}
    wait_until(
        lambda: (
            used(servers[0])[0] | {"expected": 0}
            == used(servers[1])[0] | {"expected": 0, "spent": 50, "held": 0}
        )
    )


def test_far_from_a_limit_nobody_waits_for_the_database(start: Start, upstream: Upstream) -> None:
    upstream.handler = answer
    refuse = {"on_database_down": "refuse"}
    server = start(
        prices=PRICES, limit=[limit(usd=1000), limit(requests=1000) | {"name": "m"}], limits=refuse
    )
    asked = 0

    def passes_a_lock() -> bool:
        """What is known of a limit is known for a second."""
        nonlocal asked
        asked += 2
        before = ask_all([server], 1)
        with locked(str(server.settings["database_url"])):
            return before == ask_all([server], 1) == {200: 1}

    wait_until(passes_a_lock)
    wait_until(lambda: not any(each["held"] for name in "lm" for each in used(server, name)))
    assert used(server, "m")[0]["spent"] == len(upstream.requests) <= asked


@pytest.mark.parametrize("amount", [{"parallel": 3}, {"tokens": 10_000_000}], ids=["near", "far"])
def test_what_a_dead_worker_held_is_released(
    start: Start, upstream: Upstream, amount: dict[str, int]
) -> None:
    per = {} if "parallel" in amount else {"per": "day"}
    server = start(prices=PRICES, limit=[{"name": "l", "scope": "everyone", **per, **amount}])
    go = threading.Event()
    streams = open_streams(server, upstream, 3, go)
    wait_until(lambda: sum(each["held"] for each in used(server)) >= 3)
    if "parallel" in amount:
        assert ask_all([server], 2) == {429: 2}
    (worker,) = server.workers()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: server.workers() not in ([], [worker]))
    wait_until(lambda: sum(each["held"] for each in used(server)) == 0)
    go.set()
    upstream.handler = answer
    assert ask_all([server], 1) == {200: 1}
    assert not any(stream.is_complete for stream in streams)


def test_parallel_requests_one_after_another(start: Start, upstream: Upstream) -> None:
    """The end of a request makes room at once, though its record takes a moment."""
    upstream.handler = answer
    server = start(prices=PRICES, limit=[{"name": "l", "scope": "everyone", "parallel": 1}])
    assert [ask_all([server], 1) for _ in range(10)] == [{200: 1}] * 10


def test_a_stream_is_not_cut_and_holds_more_as_it_grows(start: Start, upstream: Upstream) -> None:
    """An answer that is longer than was expected leaves less for others."""
    go = threading.Event()
    delta = DELTA.replace(b"Hi", b"word " * 40) * 100
    steps = [stream_head(), chunk(START + BLOCK), chunk(delta), go, chunk(END), LAST_CHUNK]
    upstream.handler = lambda received: steps
    server = start(prices=PRICES, limit=[limit(tokens=3000)])
    client = server.connect()
    client.send("POST", MESSAGES, ASK.replace(b'"max_tokens": 4000', b'"max_tokens": 9, "stream": true'))
    client.head()
    wait_until(lambda: used(server)[0]["held"] > 3000)
    assert ask_all([server], 1) == {429: 1}
    go.set()
    assert client.chunks()[1]
    wait_until(lambda: used(server)[0]["held"] == 0)


@pytest.mark.parametrize("policy", ["allow", "refuse"])
def test_a_database_that_is_away(start: Start, upstream: Upstream, postgres: Postgres, policy: str) -> None:
    upstream.handler = answer
    server = start(
        prices=PRICES,
        limit=[limit(requests=100)],
        limits={"on_database_down": policy},
        database_url=postgres.new_url(),
    )
    wait_until(lambda: server.get("/limits")["results"] != [])
    with postgres.silent():
        assert ask_all([server], 3) == {200 if policy == "allow" else 503: 3}
    wait_until(lambda: ask_all([server], 1) == {200: 1})
    wait_until(lambda: sum(each["spent"] for each in used(server)) >= (4 if policy == "allow" else 1))


def test_a_webhook_hears_how_much_is_used(start: Start, upstream: Upstream) -> None:
    """Once each, signed; again if it was not taken."""
    upstream.handler = answer
    hook = Upstream()
    hook.enqueue(http_response(503, b""))
    hook.handler = lambda received: (http_response(204, b""),)
    server = start(
        prices=PRICES,
        limit=[limit(requests=4)],
        limits={"notice_url": f"{hook.url}/hook"},
        secret_key={"value": "s3cret"},
        environ={"AIBRIDGE_WORKERS": "2"},
    )
    assert [ask_all([server], 1) for _ in range(5)] == [*[{200: 1}] * 4, {429: 1}]
    told = [json.loads(each.body) for each in hook.wait_for_requests(4)]
    assert [each["percent"] for each in told] == [75, 75, 95, 100]
    assert told[1] | {"made_at": ""} == {
        "event": "limit_used", "limit": "l", "of": "everyone", "percent": 75, "used": 3, "amount": 4, "unit": "requests",
        "per": "month", "mode": "enforce", "made_at": "",
    }  # fmt: skip
    sent = hook.requests[-1]
    time, _, digest = str(sent.header("x-aibridge-signature")).partition(",v1=")
    assert digest == hmac.digest(b"s3cret", time[2:].encode() + b"." + sent.body, "sha256").hex()
    assert server.stop().count("% of limit 'l' are used by 'everyone'") == 3
    hook.close()
