"""Which central key a request is sent with, and failover when the upstream refuses one."""

from __future__ import annotations

import gzip
import json
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.conftest import MakeApp
from tests.support.clock import Clock
from tests.support.server import PREFIX
from tests.support.upstream import (
    CLOSE,
    LAST_CHUNK,
    Upstream,
    chunk,
    event_stream,
    http_response,
    stream_head,
)

KEYS = [f"sk-ant-{letter}-0123456789-{letter}{letter}{letter}{letter}" for letter in "abc"]
MESSAGES = f"{PREFIX}/anthropic/v1/messages"
MODELS = f"{PREFIX}/anthropic/v1/models"
OK = http_response(200, b'{"id":"msg_1","type":"message","content":[]}')
LIMITED = http_response(429, b'{"type":"error"}', "Retry-After: 7")
REFUSED = http_response(401, b'{"type":"error","error":{"type":"authentication_error","message":"x"}}')


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def client(make_app: MakeApp, upstream: Upstream) -> FlaskClient:
    return make_client(make_app, upstream, *KEYS)


def make_client(make_app: MakeApp, upstream: Upstream, *keys: str) -> FlaskClient:
    named = [{"value": key} for key in keys]
    return make_app(providers=[{"type": "anthropic", "base_url": upstream.url, "keys": named}]).test_client()


def ask(client: FlaskClient, model: str = "m", **headers: str) -> TestResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}]})
    return client.post(MESSAGES, data=body, headers=named, buffered=True)


def used_keys(upstream: Upstream) -> str:
    """The letters of the keys in the order in which the upstream received them."""
    return "".join(received.header("x-api-key")[7] for received in upstream.requests)


def newest_record(client: FlaskClient) -> dict[str, object]:
    record: dict[str, object] = client.get(f"{PREFIX}/interceptions").get_json()["results"][0]
    return record


@pytest.mark.parametrize("refusal", [LIMITED, REFUSED])
def test_a_refused_key_cools_down_and_the_next_is_used(
    client: FlaskClient, upstream: Upstream, clock: Clock, refusal: bytes
) -> None:
    upstream.enqueue(refusal)
    upstream.enqueue(OK)
    assert ask(client).status_code == 200
    assert used_keys(upstream) == "ab"
    assert upstream.requests[0].body == upstream.requests[1].body
    assert newest_record(client)["credential_hint"] == "sk-a...bbbb"
    upstream.enqueue(OK)
    assert ask(client).status_code == 200
    assert used_keys(upstream) == "abb"
    clock.advance(61)
    upstream.enqueue(OK)
    assert ask(client).status_code == 200
    assert used_keys(upstream) == "abba"
    assert newest_record(client)["credential_hint"] == "sk-a...aaaa"


def test_a_rate_limit_cools_a_key_for_one_model_and_a_refusal_for_all(
    client: FlaskClient, upstream: Upstream, clock: Clock
) -> None:
    for reply in (LIMITED, OK, OK):
        upstream.enqueue(reply)
    ask(client, "opus")
    ask(client, "haiku")
    assert used_keys(upstream) == "aba"
    upstream.requests.clear()
    for reply in (REFUSED, OK, OK):
        upstream.enqueue(reply)
    ask(client, "haiku")
    ask(client, "sonnet")
    assert used_keys(upstream) == "abb"


@pytest.mark.parametrize(
    ("header", "cooldown"),
    [
        ("Retry-After: 7", 7), ("Retry-After: DATE", 90), ("X: y", 60), ("Retry-After: soon", 60),
        ("Retry-After: 7.5", 7.5), ("retry-after-ms: 7500", 7.5), ("retry-after-ms: x\r\nRetry-After: 7", 7),
        ("Retry-After: -5", 60), ("Retry-After: 99999999999999999999", 86_400),
    ],
)  # fmt: skip
def test_the_cooldown_follows_retry_after(
    client: FlaskClient, upstream: Upstream, clock: Clock, header: str, cooldown: float
) -> None:
    date = datetime.fromtimestamp(clock.now, UTC).replace(microsecond=0) + timedelta(seconds=91)
    upstream.enqueue(http_response(429, b"{}", header.replace("DATE", format_datetime(date, usegmt=True))))
    upstream.enqueue(OK)
    ask(client)
    for seconds, key in ((cooldown - 2, "b"), (4, "a")):
        clock.advance(seconds)
        upstream.requests.clear()
        upstream.enqueue(OK)
        ask(client)
        assert used_keys(upstream) == key


def test_each_key_is_tried_once_and_the_shortest_cooldown_is_returned(
    client: FlaskClient, upstream: Upstream, clock: Clock
) -> None:
    for seconds in (30, 3, 20):
        upstream.enqueue(http_response(429, b"{}", f"Retry-After: {seconds}"))
    response = ask(client)
    assert used_keys(upstream) == "abc"
    assert (response.status_code, response.headers["Retry-After"]) == (429, "3")
    error = response.get_json()["error"]
    assert error == {
        "type": "rate_limit_error",
        "message": "all configured keys are rate-limited (retry after 3s)",
    }
    assert newest_record(client)["error_type"] == "rate_limited"
    assert ask(client).status_code == 429
    assert used_keys(upstream) == "abc"
    clock.advance(4)
    upstream.enqueue(OK)
    assert ask(client).status_code == 200
    assert used_keys(upstream) == "abcb"


def test_a_request_that_every_key_refuses_is_a_502_with_the_providers_words_and_rests_no_key(
    client: FlaskClient, upstream: Upstream, clock: Clock
) -> None:
    for _ in range(2):
        for _ in KEYS:
            upstream.enqueue(REFUSED)
        response = ask(client)
        assert response.status_code == 502
        assert response.get_json()["error"] == {
            "type": "api_error",
            "message": "all configured keys failed authentication. Contact your administrator: x",
        }
        assert "Retry-After" not in response.headers
    assert newest_record(client)["error_type"] == "unauthorized"
    upstream.enqueue(OK)
    assert ask(client).status_code == 200
    assert used_keys(upstream) == "abcabca"


def test_the_providers_words_do_not_reveal_the_key(client: FlaskClient, upstream: Upstream) -> None:
    upstream.handler = lambda received: [
        http_response(401, json.dumps({"error": {"message": f"bad {received.header('x-api-key')}"}}).encode())
    ]
    response = ask(client)
    assert response.get_json()["error"]["message"].endswith(": bad sk-a...cccc")


def test_a_key_that_is_refused_rests_once_another_is_rate_limited(
    client: FlaskClient, upstream: Upstream, clock: Clock
) -> None:
    for reply in (REFUSED, LIMITED, OK, OK):
        upstream.enqueue(reply)
    assert ask(client).status_code == 200
    assert ask(client).status_code == 200
    assert used_keys(upstream) == "abcc"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (
            400,
            {"type": "invalid_request_error", "message": "Your credit balance is too low to access the API"},
        ),
        (403, {"type": "billing_error", "message": "y"}),
        (402, {"type": "billing_error", "message": "y"}),
        (429, {"type": "insufficient_quota", "message": "y"}),
        (429, {"code": "insufficient_quota", "message": "You exceeded your current quota"}),
        (402, {"message": "Insufficient Balance"}),
    ],
)
def test_a_key_without_credit_rests_for_all_models(
    client: FlaskClient, upstream: Upstream, clock: Clock, status: int, error: dict[str, str]
) -> None:
    for reply in (http_response(status, json.dumps({"error": error}).encode()), OK, OK, OK):
        upstream.enqueue(reply)
    assert ask(client, "opus").status_code == 200
    assert ask(client, "haiku").status_code == 200
    clock.advance(61)
    assert ask(client).status_code == 200
    assert used_keys(upstream) == "abba"


def test_a_single_key_without_credit_gives_the_client_the_upstreams_own_answer(
    make_app: MakeApp, upstream: Upstream
) -> None:
    body = b'{"error":{"type":"insufficient_quota","message":"y"}}'
    upstream.enqueue(http_response(429, body))
    response = ask(make_client(make_app, upstream, KEYS[0]))
    assert (response.status_code, response.get_data()) == (429, body)


@pytest.mark.parametrize("size", [10, 200_000])
def test_a_refusal_about_the_request_passes_whole(client: FlaskClient, upstream: Upstream, size: int) -> None:
    body = json.dumps({"error": {"type": "invalid_request_error", "message": "x" * size}}).encode()
    upstream.enqueue(http_response(400, body))
    response = ask(client)
    assert (response.status_code, response.get_data()) == (400, body)
    assert used_keys(upstream) == "a"


def test_a_compressed_refusal_is_read_and_passes_unchanged(client: FlaskClient, upstream: Upstream) -> None:
    refusal = gzip.compress(b'{"error":{"type":"billing_error"}}')
    other = gzip.compress(b'{"error":{"type":"permission_error"}}')
    for body in (refusal, other):
        upstream.enqueue(http_response(403, body, "Content-Encoding: gzip"))
    response = client.get(MODELS, buffered=True)
    assert (response.status_code, response.get_data()) == (403, other)
    assert used_keys(upstream) == "ab"


def test_a_refusal_that_breaks_off_breaks_off_for_the_client(client: FlaskClient, upstream: Upstream) -> None:
    upstream.enqueue(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 50\r\n\r\n{", CLOSE)
    with pytest.raises(ConnectionResetError):
        ask(client)
    assert used_keys(upstream) == "a"


def rest_the_first_key_for_passthrough_only(client: FlaskClient, upstream: Upstream, refusal: bytes) -> None:
    for reply in (refusal, OK, OK, OK):
        upstream.enqueue(reply)
    assert client.get(MODELS, buffered=True).status_code == 200
    assert client.get(MODELS, buffered=True).status_code == 200
    assert ask(client).status_code == 200
    assert used_keys(upstream) == "abba"


def test_passthrough_401s_rest_a_key_for_passthrough_only(
    client: FlaskClient, upstream: Upstream, clock: Clock
) -> None:
    rest_the_first_key_for_passthrough_only(client, upstream, REFUSED)


def test_one_limited_key_among_refused_ones_is_a_rate_limit(
    client: FlaskClient, upstream: Upstream, clock: Clock
) -> None:
    for reply in (REFUSED, LIMITED, REFUSED):
        upstream.enqueue(reply)
    assert ask(client).headers["Retry-After"] == "7"


@pytest.mark.parametrize("status", [400, 403, 404, 500, 503, 529])
def test_any_other_status_is_passed_on(client: FlaskClient, upstream: Upstream, status: int) -> None:
    upstream.enqueue(http_response(status, b'{"its":"own"}'))
    response = ask(client)
    assert (response.status_code, response.get_data()) == (status, b'{"its":"own"}')
    assert used_keys(upstream) == "a"


def test_a_single_key_never_cools_down(make_app: MakeApp, upstream: Upstream, clock: Clock) -> None:
    client = make_client(make_app, upstream, KEYS[0])
    for reply in (LIMITED, REFUSED, OK):
        upstream.enqueue(reply)
    limited, refused, served = (ask(client) for _ in range(3))
    assert (limited.status_code, limited.headers["Retry-After"]) == (429, "7")
    assert limited.get_data() == b'{"type":"error"}'
    assert refused.status_code == 502
    assert served.status_code == 200


def test_a_users_own_key_and_the_pool_are_independent(
    client: FlaskClient, upstream: Upstream, clock: Clock
) -> None:
    for reply in (LIMITED, REFUSED, OK):
        upstream.enqueue(reply)
    own = [ask(client, X_Api_Key="sk-ant-own-0123456789").status_code for _ in range(2)]
    assert own == [429, 401]
    assert ask(client).status_code == 200
    assert used_keys(upstream) == "ooa"


def test_passthrough_fails_over_with_cooldowns_of_its_own(
    client: FlaskClient, upstream: Upstream, clock: Clock
) -> None:
    rest_the_first_key_for_passthrough_only(client, upstream, LIMITED)
    upstream.requests.clear()
    for reply in (REFUSED, OK, OK):
        upstream.enqueue(reply)
    client.post(f"{MESSAGES}/count_tokens", data=b"counted", buffered=True)
    assert [received.body for received in upstream.requests] == [b"counted"] * 2
    assert ask(client).status_code == 200
    assert used_keys(upstream) == "bca"  # the 401 and the 429 rest them for passthrough only


def test_a_stream_fails_over_before_its_first_byte_and_never_after(
    client: FlaskClient, upstream: Upstream, clock: Clock
) -> None:
    event = b'event: error\ndata: {"type":"error","error":{"type":"rate_limit_error"}}\n\n'
    upstream.enqueue(LIMITED)
    upstream.enqueue(stream_head(), chunk(event), LAST_CHUNK)
    response = client.post(MESSAGES, data=b'{"model":"m","stream":true}', buffered=True)
    assert (response.status_code, response.get_data()) == (200, event)
    assert used_keys(upstream) == "ab"


def test_a_hundred_concurrent_rate_limits_mark_the_key_once(
    make_app: MakeApp, upstream: Upstream, clock: Clock
) -> None:
    count, arrived = 100, threading.Barrier(100, timeout=30)
    app = make_app(
        providers=[{"type": "anthropic", "base_url": upstream.url, "keys": [{"value": key} for key in KEYS]}],
        metrics={"enabled": True},
    )

    def reply(received: object) -> list[bytes]:
        if received.header("x-api-key") != KEYS[0]:
            return [OK]
        arrived.wait()
        return [LIMITED]

    upstream.handler = reply
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(ask(app.test_client()).status_code))
        for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * count
    text = app.test_client().get(f"{PREFIX}/metrics").get_data(as_text=True)
    assert 'aibridge_key_pool_state_transitions_total{provider="anthropic",reason="rate_limited"} 1.0' in text


def test_a_streams_record_names_the_key_that_served(
    client: FlaskClient, upstream: Upstream, clock: Clock
) -> None:
    upstream.enqueue(REFUSED)
    upstream.enqueue(*event_stream(b'event: message_stop\ndata: {"type":"message_stop"}\n\n'))
    client.post(MESSAGES, data=b'{"model":"m","stream":true}', buffered=True)
    assert (newest_record(client)["credential_hint"], newest_record(client)["status_code"]) == (
        "sk-a...bbbb",
        200,
    )
