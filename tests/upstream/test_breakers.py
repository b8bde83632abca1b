"""Circuit breakers and retries: when a request is sent upstream, and when not."""

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


def providers(url: str, **options: object) -> list[dict[str, object]]:
    key = [{"value": "sk-central-0123456789012"}]
    return [
        {"type": "anthropic", "base_url": url, "keys": key, **options},
        {"type": "openai", "base_url": f"{url}/v1", "keys": key, **options},
    ]


@pytest.fixture
def app(make_app: MakeApp, upstream: Upstream, clock: Clock) -> Flask:
    return make_app(providers=providers(upstream.url, circuit_breaker=LIMITS))


def ask(app: Flask, path: str = MESSAGES, model: str = "m", **fields: object) -> TestResponse:
    return app.test_client().post(PREFIX + path, data=json.dumps({"model": model, **fields}), buffered=True)


def ask_in_turn(app: Flask, upstream: Upstream, *replies: object) -> list[int]:
    """Sends one request after the other, each with one scripted response; returns the statuses."""
    statuses = []
    for reply in replies:
        upstream.enqueue(reply)
        statuses.append(ask(app).status_code)
    return statuses


def open_breaker(app: Flask, upstream: Upstream) -> None:
    assert ask_in_turn(app, upstream, DOWN, DOWN, DOWN) == [503] * 3
    upstream.requests.clear()


def test_consecutive_failures_open_the_breaker(app: Flask, upstream: Upstream, clock: Clock) -> None:
    assert ask_in_turn(app, upstream, DOWN, DOWN, OK, DOWN, DOWN) == [503, 503, 200, 503, 503]
    assert ask_in_turn(app, upstream, DOWN) == [503]
    upstream.requests.clear()
    response = ask(app)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "30")
    assert response.get_json()["error"] == {"type": "overloaded_error", "message": "circuit breaker is open"}
    assert response.headers["X-AIBridge-Interception-Id"]
    assert upstream.requests == []
    newest = app.test_client().get(f"{PREFIX}/interceptions").get_json()["results"][0]
    assert (newest["error_type"], newest["status_code"]) == ("overloaded", 503)


def test_openai_clients_get_the_error_in_openais_shape(app: Flask, upstream: Upstream, clock: Clock) -> None:
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


def test_a_breaker_covers_one_endpoint_and_model(app: Flask, upstream: Upstream, clock: Clock) -> None:
    open_breaker(app, upstream)
    for path, model in ((MESSAGES, "other"), (CHAT, "m"), ("/openai/v1/responses", "m")):
        upstream.enqueue(OK)
        assert ask(app, path, model).status_code == 200
    upstream.enqueue(OK)
    passed = app.test_client().get(f"{PREFIX}/anthropic/v1/models", buffered=True)
    assert passed.status_code == 200
    assert ask(app).status_code == 503


def test_failures_expire_after_the_interval(app: Flask, upstream: Upstream, clock: Clock) -> None:
    assert ask_in_turn(app, upstream, DOWN, DOWN) == [503, 503]
    clock.advance(11)
    assert ask_in_turn(app, upstream, DOWN, DOWN, OK) == [503, 503, 200]


def test_successful_trials_close_the_breaker(app: Flask, upstream: Upstream, clock: Clock) -> None:
    open_breaker(app, upstream)
    clock.advance(31)
    assert ask_in_turn(app, upstream, OK, OK, DOWN, DOWN, OK) == [200, 200, 503, 503, 200]


def test_a_failed_trial_reopens_the_breaker(app: Flask, upstream: Upstream, clock: Clock) -> None:
    open_breaker(app, upstream)
    clock.advance(31)
    assert ask_in_turn(app, upstream, OK, DOWN) == [200, 503]
    upstream.requests.clear()
    response = ask(app)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "30")
    assert upstream.requests == []


@contextlib.contextmanager
def pending_requests(
    app: Flask, upstream: Upstream, count: int, reply: bytes = OK
) -> Iterator[Callable[[], None]]:
    """`count` pending requests; calling the yielded function answers them all."""
    go, before = threading.Event(), len(upstream.requests)
    for _ in range(count):
        upstream.enqueue(go, reply)
    threads = [threading.Thread(target=ask, args=(app,)) for _ in range(count)]
    for thread in threads:
        thread.start()
    upstream.wait_for_requests(before + count)

    def answer_all() -> None:
        go.set()
        for thread in threads:
            thread.join()

    yield answer_all
    answer_all()


def test_concurrent_trials_are_limited(app: Flask, upstream: Upstream, clock: Clock) -> None:
    open_breaker(app, upstream)
    clock.advance(31)
    with pending_requests(app, upstream, 2) as answer_all:
        response = ask(app)
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        answer_all()
    assert ask_in_turn(app, upstream, OK) == [200]


def test_late_answers_change_nothing(app: Flask, upstream: Upstream, clock: Clock) -> None:
    with pending_requests(app, upstream, 2) as answer_all:
        open_breaker(app, upstream)
        answer_all()
        upstream.requests.clear()
        assert ask(app).status_code == 503
        assert upstream.requests == []
    clock.advance(31)
    with pending_requests(app, upstream, 1, DOWN) as answer_all:
        assert ask_in_turn(app, upstream, DOWN) == [503]
        clock.advance(31)
        assert ask_in_turn(app, upstream, OK, OK, OK) == [200, 200, 200]
        answer_all()
    assert ask_in_turn(app, upstream, OK) == [200]


def test_client_disconnect_releases_the_trial(start: Start, upstream: Upstream) -> None:
    limits = {**LIMITS, "timeout": 0.05, "max_requests": 1}
    server = start(providers=providers(upstream.url, circuit_breaker=limits))
    upstream.handler = lambda received: [DOWN]
    wait_until(lambda: get_status(server) == 503 and len(upstream.requests) >= 3)
    disconnected = threading.Event()
    upstream.handler = lambda received: [disconnected, OK]
    wait_until(lambda: start_trial_and_disconnect(server, upstream))
    disconnected.set()
    upstream.handler = lambda received: [OK]
    wait_until(lambda: get_status(server) == 200)


def get_status(server: Server) -> int:
    client = server.connect()
    client.send("POST", MESSAGES, b'{"model":"m"}')
    code, headers = client.head()
    client.body(headers)
    client.close()
    return code


def start_trial_and_disconnect(server: Server, upstream: Upstream) -> bool:
    """Sends a request and disconnects; true if it was sent upstream."""
    before = len(upstream.requests)
    client = server.connect()
    client.send("POST", MESSAGES, b'{"model":"m"}')
    wait_until(lambda: len(upstream.requests) > before or select.select([client.sock], [], [], 0)[0])
    client.close()
    return len(upstream.requests) > before


def test_each_state_change_is_logged_once(
    app: Flask, upstream: Upstream, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "aibridge")
    with pending_requests(app, upstream, 5, DOWN) as answer_all:
        answer_all()
    clock.advance(31)
    ask_in_turn(app, upstream, OK, OK)
    states = [record.getMessage().rpartition(": ")[2] for record in caplog.records]
    assert states == ["open", "half-open", "closed"]


def test_the_number_of_tracked_models_is_bounded(app: Flask, upstream: Upstream, clock: Clock) -> None:
    upstream.handler = lambda received: [DOWN]
    for number in range(1100):
        ask(app, model=f"model-{number}")
    upstream.requests.clear()
    for _ in range(3):
        assert ask(app, model="model-1099").status_code == 503
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("get_status", [408, 409, 500, 502, 503, 529])
def test_transient_failures_are_retried(make_app: MakeApp, upstream: Upstream, get_status: int) -> None:
    app = make_app(providers=providers(upstream.url, max_retries=2))
    upstream.enqueue(http_response(get_status, b"{}", "Retry-After: 0"))
    upstream.enqueue(http_response(get_status, b"{}", "Retry-After: 0"))
    assert ask_in_turn(app, upstream, OK) == [200]
    assert len(upstream.requests) == 3
    assert len({received.body for received in upstream.requests}) == 1


@pytest.mark.parametrize(
    "reply",
    [
        http_response(400, b"{}"),
        http_response(429, b"{}"),
        http_response(404, b"{}"),
        http_response(500, b"{}", "x-should-retry: false"),
    ],
)
def test_permanent_failures_are_not_retried(make_app: MakeApp, upstream: Upstream, reply: bytes) -> None:
    app = make_app(providers=providers(upstream.url, max_retries=2))
    ask_in_turn(app, upstream, reply)
    assert len(upstream.requests) == 1


def test_the_client_gets_the_last_answer(make_app: MakeApp, upstream: Upstream) -> None:
    app = make_app(providers=providers(upstream.url, max_retries=1))
    upstream.enqueue(http_response(503, b"first", "Retry-After: 0"))
    upstream.enqueue(http_response(503, b"second", "Retry-After: 5"))
    response = ask(app)
    assert (response.get_data(), response.headers["Retry-After"]) == (b"second", "5")


@pytest.mark.parametrize("reply", [[CLOSE], [RESET], [b"junk\r\n\r\n", CLOSE]])
def test_a_broken_connection_is_not_retried(
    make_app: MakeApp, upstream: Upstream, reply: list[object]
) -> None:
    """The upstream may have begun to process the request."""
    app = make_app(providers=providers(upstream.url, max_retries=3))
    upstream.enqueue(*reply)
    assert ask(app).status_code == 502
    assert len(upstream.requests) == 1


def test_a_timeout_is_not_retried(make_app: MakeApp, upstream: Upstream) -> None:
    app = make_app(providers=providers(upstream.url, max_retries=3), read_timeout=0.2)
    late = threading.Event()
    upstream.enqueue(late)
    assert ask(app).status_code == 504
    late.set()
    assert len(upstream.requests) == 1


def test_a_refused_connection_is_retried(make_app: MakeApp, upstream: Upstream) -> None:
    """The port does not listen at first."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        app = make_app(providers=providers(f"http://127.0.0.1:{port}", max_retries=8))
        statuses: list[int] = []
        thread = threading.Thread(target=lambda: statuses.append(ask(app).status_code))
        thread.start()
        wait_until(lambda: app.test_client().get(f"{PREFIX}/interceptions").get_json()["count"] == 1)
        listener.listen()
        listener.settimeout(TIMEOUT_SECONDS)
        peer, _ = listener.accept()
        with peer:
            peer.recv(65536)
            peer.sendall(OK)
            thread.join()
    assert statuses == [200]


def test_a_stream_is_never_retried(make_app: MakeApp, upstream: Upstream) -> None:
    app = make_app(providers=providers(upstream.url, max_retries=3))
    upstream.enqueue(*event_stream(b"event: ping\ndata: {}\n\n")[:2], CLOSE)
    with contextlib.suppress(OSError):
        ask(app, stream=True)
    assert len(upstream.requests) == 1
