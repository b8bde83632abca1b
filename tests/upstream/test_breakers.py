"""Circuit breakers and retries: when the upstream is asked, and when no more."""

from __future__ import annotations

import contextlib
import json
import logging
import select
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tests.conftest import MakeApp, Start
from tests.support.clock import Clock
from tests.support.server import PREFIX, Server, wait_until
from tests.support.upstream import CLOSE, RESET, TIMEOUT_SECONDS, Upstream, event_stream, http_response

MESSAGES, CHAT = "/anthropic/v1/messages", "/openai/v1/chat/completions"
OK = http_response(200, b"{}")
DOWN = http_response(503, b'{"its":"own"}')
LIMITS = {"failure_threshold": 3, "interval": 10.0, "timeout": 30.0, "max_requests": 2}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def providers(url: str, **more: object) -> list[dict[str, object]]:
    key = [{"value": "sk-central-0123456789012"}]
    return [
        {"type": "anthropic", "base_url": url, "keys": key, **more},
        {"type": "openai", "base_url": f"{url}/v1", "keys": key, **more},
    ]


@pytest.fixture
def app(make_app: MakeApp, upstream: Upstream, clock: Clock) -> Flask:
    return make_app(providers=providers(upstream.url, circuit_breaker=LIMITS))


def ask(app: Flask, path: str = MESSAGES, model: str = "m", **fields: object) -> TestResponse:
    return app.test_client().post(PREFIX + path, data=json.dumps({"model": model, **fields}), buffered=True)


def asks(app: Flask, upstream: Upstream, *replies: object) -> list[int]:
    """One request after the other, each with one scripted answer."""
    found = []
    for reply in replies:
        upstream.enqueue(reply)
        found.append(ask(app).status_code)
    return found


def opened(app: Flask, upstream: Upstream) -> None:
    assert asks(app, upstream, DOWN, DOWN, DOWN) == [503] * 3
    upstream.requests.clear()


def test_consecutive_failures_open_it(app: Flask, upstream: Upstream, clock: Clock) -> None:
    assert asks(app, upstream, DOWN, DOWN, OK, DOWN, DOWN) == [503, 503, 200, 503, 503]
    assert asks(app, upstream, DOWN) == [503]
    upstream.requests.clear()
    response = ask(app)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "30")
    assert response.get_json()["error"] == {"type": "overloaded_error", "message": "circuit breaker is open"}
    assert response.headers["X-AIBridge-Interception-Id"]
    assert upstream.requests == []
    newest = app.test_client().get(f"{PREFIX}/interceptions").get_json()["results"][0]
    assert (newest["error_type"], newest["status_code"]) == ("overloaded", 503)


def test_openai_says_it_in_its_words(app: Flask, upstream: Upstream, clock: Clock) -> None:
    for _ in range(3):
        upstream.enqueue(DOWN)
        ask(app, CHAT)
    assert ask(app, CHAT).get_json()["error"] == {
        "message": "circuit breaker is open",
        "type": "server_error",
        "param": None,
        "code": "service_unavailable",
    }


@pytest.mark.parametrize(
    ("path", "reply", "counts"),
    [
        (MESSAGES, [http_response(503, b"")], True),
        (MESSAGES, [http_response(504, b"")], True),
        (MESSAGES, [http_response(529, b"")], True),
        (CHAT, [http_response(529, b"")], False),
        (CHAT, [http_response(503, b"")], True),
        (MESSAGES, [http_response(500, b"")], False),
        (MESSAGES, [http_response(429, b"")], False),
        (MESSAGES, [http_response(400, b"")], False),
        (MESSAGES, [CLOSE], True),
        (MESSAGES, [RESET], True),
        (MESSAGES, [b"junk\r\n\r\n", CLOSE], True),
    ],
)
def test_what_counts_as_a_failure(
    app: Flask, upstream: Upstream, clock: Clock, path: str, reply: list[object], counts: bool
) -> None:
    for _ in range(3):
        upstream.enqueue(*reply)
        ask(app, path)
    upstream.requests.clear()
    upstream.enqueue(OK)
    assert ask(app, path).status_code == (503 if counts else 200)
    assert len(upstream.requests) == (0 if counts else 1)


def test_it_stands_for_one_endpoint_and_model(app: Flask, upstream: Upstream, clock: Clock) -> None:
    opened(app, upstream)
    for path, model in ((MESSAGES, "other"), (CHAT, "m"), ("/openai/v1/responses", "m")):
        upstream.enqueue(OK)
        assert ask(app, path, model).status_code == 200
    upstream.enqueue(OK)
    passed = app.test_client().get(f"{PREFIX}/anthropic/v1/models", buffered=True)
    assert passed.status_code == 200
    assert ask(app).status_code == 503


def test_failures_are_forgotten_after_the_interval(app: Flask, upstream: Upstream, clock: Clock) -> None:
    assert asks(app, upstream, DOWN, DOWN) == [503, 503]
    clock.advance(11)
    assert asks(app, upstream, DOWN, DOWN, OK) == [503, 503, 200]


def test_trials_that_succeed_close_it(app: Flask, upstream: Upstream, clock: Clock) -> None:
    opened(app, upstream)
    clock.advance(31)
    assert asks(app, upstream, OK, OK, DOWN, DOWN, OK) == [200, 200, 503, 503, 200]


def test_a_trial_that_fails_opens_it_again(app: Flask, upstream: Upstream, clock: Clock) -> None:
    opened(app, upstream)
    clock.advance(31)
    assert asks(app, upstream, OK, DOWN) == [200, 503]
    upstream.requests.clear()
    response = ask(app)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "30")
    assert upstream.requests == []


@contextlib.contextmanager
def waiting(app: Flask, upstream: Upstream, count: int, reply: bytes = OK) -> Iterator[Callable[[], None]]:
    """`count` requests whose answers wait until what is given is called."""
    go, heads = threading.Event(), len(upstream.requests)
    for _ in range(count):
        upstream.enqueue(go, reply)
    threads = [threading.Thread(target=ask, args=(app,)) for _ in range(count)]
    for thread in threads:
        thread.start()
    upstream.wait_for_requests(heads + count)

    def answer_all() -> None:
        go.set()
        for thread in threads:
            thread.join()

    yield answer_all
    answer_all()


def test_only_so_many_trials_at_once(app: Flask, upstream: Upstream, clock: Clock) -> None:
    opened(app, upstream)
    clock.advance(31)
    with waiting(app, upstream, 2) as answer_them:
        response = ask(app)
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        answer_them()
    assert asks(app, upstream, OK) == [200]


def test_late_answers_change_nothing(app: Flask, upstream: Upstream, clock: Clock) -> None:
    with waiting(app, upstream, 2) as answer_late:
        opened(app, upstream)
        answer_late()
        upstream.requests.clear()
        assert ask(app).status_code == 503
        assert upstream.requests == []
    clock.advance(31)
    with waiting(app, upstream, 1, DOWN) as answer_late:
        assert asks(app, upstream, DOWN) == [503]
        clock.advance(31)
        assert asks(app, upstream, OK, OK, OK) == [200, 200, 200]
        answer_late()
    assert asks(app, upstream, OK) == [200]


def test_a_trial_whose_client_leaves_gives_its_place_back(start: Start, upstream: Upstream) -> None:
    limits = {**LIMITS, "timeout": 0.05, "max_requests": 1}
    server = start(providers=providers(upstream.url, circuit_breaker=limits))
    upstream.handler = lambda heard: [DOWN]
    wait_until(lambda: status(server) == 503 and len(upstream.requests) >= 3)
    gone = threading.Event()
    upstream.handler = lambda heard: [gone, OK]
    wait_until(lambda: leave(server, upstream))
    gone.set()
    upstream.handler = lambda heard: [OK]
    wait_until(lambda: status(server) == 200)


def status(server: Server) -> int:
    client = server.connect()
    client.send("POST", MESSAGES, b'{"model":"m"}')
    found, headers = client.head()
    client.body(headers)
    client.close()
    return found


def leave(server: Server, upstream: Upstream) -> bool:
    """True once a request was let through, and left."""
    before = len(upstream.requests)
    client = server.connect()
    client.send("POST", MESSAGES, b'{"model":"m"}')
    wait_until(lambda: len(upstream.requests) > before or select.select([client.sock], [], [], 0)[0])
    client.close()
    return len(upstream.requests) > before


def test_changes_are_told_once(
    app: Flask, upstream: Upstream, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "aibridge")
    with waiting(app, upstream, 5, DOWN) as answer_all:
        answer_all()
    clock.advance(31)
    asks(app, upstream, OK, OK)
    told = [record.getMessage().rpartition(": ")[2] for record in caplog.records]
    assert told == ["open", "half-open", "closed"]


def test_a_thousand_models_do_not_grow_it_without_end(app: Flask, upstream: Upstream, clock: Clock) -> None:
    upstream.handler = lambda heard: [DOWN]
    for number in range(1100):
        ask(app, model=f"model-{number}")
    upstream.requests.clear()
    for _ in range(3):
        assert ask(app, model="model-1099").status_code == 503
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("status", [408, 409, 500, 502, 503, 529])
def test_passing_failures_are_asked_again(make_app: MakeApp, upstream: Upstream, status: int) -> None:
    app = make_app(providers=providers(upstream.url, max_retries=2))
    upstream.enqueue(http_response(status, b"{}", "Retry-After: 0"))
    upstream.enqueue(http_response(status, b"{}", "Retry-After: 0"))
    assert asks(app, upstream, OK) == [200]
    assert len(upstream.requests) == 3
    assert len({heard.body for heard in upstream.requests}) == 1


@pytest.mark.parametrize(
    "reply",
    [
        http_response(400, b"{}"),
        http_response(429, b"{}"),
        http_response(404, b"{}"),
        http_response(500, b"{}", "x-should-retry: false"),
    ],
)
def test_what_asking_again_cannot_mend_is_the_answer(
    make_app: MakeApp, upstream: Upstream, reply: bytes
) -> None:
    app = make_app(providers=providers(upstream.url, max_retries=2))
    asks(app, upstream, reply)
    assert len(upstream.requests) == 1


def test_the_last_answer_is_the_clients(make_app: MakeApp, upstream: Upstream) -> None:
    app = make_app(providers=providers(upstream.url, max_retries=1))
    upstream.enqueue(http_response(503, b"first", "Retry-After: 0"))
    upstream.enqueue(http_response(503, b"second", "Retry-After: 5"))
    response = ask(app)
    assert (response.get_data(), response.headers["Retry-After"]) == (b"second", "5")


@pytest.mark.parametrize("reply", [[CLOSE], [RESET], [b"junk\r\n\r\n", CLOSE]])
def test_a_broken_connection_is_not_asked_again(
    make_app: MakeApp, upstream: Upstream, reply: list[object]
) -> None:
    """The upstream may have begun to work on it."""
    app = make_app(providers=providers(upstream.url, max_retries=3))
    upstream.enqueue(*reply)
    assert ask(app).status_code == 502
    assert len(upstream.requests) == 1


def test_a_time_out_is_not_asked_again(make_app: MakeApp, upstream: Upstream) -> None:
    app = make_app(providers=providers(upstream.url, max_retries=3), read_timeout=0.2)
    late = threading.Event()
    upstream.enqueue(late)
    assert ask(app).status_code == 504
    late.set()
    assert len(upstream.requests) == 1


def test_a_refused_connection_is_asked_again(make_app: MakeApp, upstream: Upstream) -> None:
    """Nobody listens at first."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
        app = make_app(providers=providers(f"http://127.0.0.1:{port}", max_retries=8))
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.append(ask(app).status_code))
        thread.start()
        wait_until(lambda: app.test_client().get(f"{PREFIX}/interceptions").get_json()["count"] == 1)
        place.listen()
        place.settimeout(TIMEOUT_SECONDS)
        peer, _ = place.accept()
        with peer:
            peer.recv(65536)
            peer.sendall(OK)
            thread.join()
    assert found == [200]


def test_a_stream_is_never_asked_for_again(make_app: MakeApp, upstream: Upstream) -> None:
    app = make_app(providers=providers(upstream.url, max_retries=3))
    upstream.enqueue(*event_stream(b"event: ping\ndata: {}\n\n")[:2], CLOSE)
    with contextlib.suppress(OSError):
        ask(app, stream=True)
    assert len(upstream.requests) == 1
