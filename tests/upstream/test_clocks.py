"""A clock that is set back prolongs no cool-down and no open breaker."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from tests.conftest import MakeApp
from tests.support.clock import Clock
from tests.support.server import PREFIX
from tests.support.upstream import Upstream, http_response

HOUR = 3600.0
PATH = f"{PREFIX}/anthropic/v1/messages"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def client_of(make_app: MakeApp, upstream: Upstream, **provider: object) -> FlaskClient:
    settings = {"type": "anthropic", "base_url": upstream.url, "keys": [{"value": "sk-1"}], **provider}
    return make_app(providers=[settings]).test_client()


def post(client: FlaskClient) -> int:
    response = client.post(PATH, json={"model": "m", "messages": []})
    response.get_data()
    return response.status_code


def test_a_breaker_half_opens_after_its_timeout(make_app: MakeApp, upstream: Upstream, clock: Clock) -> None:
    client = client_of(make_app, upstream, circuit_breaker={"failure_threshold": 1, "timeout": 30.0})
    upstream.enqueue(http_response(503, b"{}"))
    assert post(client) == 503
    clock.set_back(HOUR)
    clock.advance(29)
    assert post(client) == 503
    assert len(upstream.requests) == 1
    clock.advance(2)
    upstream.enqueue(http_response(200, b"{}"))
    assert post(client) == 200


def test_a_key_cools_down_as_long_as_it_was_told(make_app: MakeApp, upstream: Upstream, clock: Clock) -> None:
    client = client_of(make_app, upstream, keys=[{"value": "sk-1"}, {"value": "sk-2"}])
    upstream.enqueue(http_response(429, b"{}", "Retry-After: 20"))
    upstream.enqueue(http_response(200, b"{}"))
    assert post(client) == 200
    clock.set_back(HOUR)
    clock.advance(19)
    upstream.enqueue(http_response(200, b"{}"))
    post(client)
    clock.advance(2)
    upstream.enqueue(http_response(200, b"{}"))
    post(client)
    keys = [request.header("X-Api-Key") for request in upstream.requests]
    assert keys == ["sk-1", "sk-2", "sk-2", "sk-1"]
