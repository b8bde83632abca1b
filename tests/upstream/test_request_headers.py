"""Which of a client's headers reach a provider."""

from __future__ import annotations

import json

import pytest

from aibridge_flask.model import Actor
from tests.conftest import MakeApp
from tests.support.server import PREFIX
from tests.support.upstream import Upstream, http_response

IDENTITY = {
    "X-Auth-Request-Email": "ann@example.com",
    "X-Forwarded-User": "ann",
    "X-Forwarded-Access-Token": "t",
    "Cf-Access-Jwt-Assertion": "t",
    "X-Amzn-Oidc-Data": "t",
    "X-Goog-Iap-Jwt-Assertion": "t",
    "X-Goog-Authenticated-User-Email": "ann",
    "X-Ms-Client-Principal-Name": "ann",
}
ACCOUNT = {
    "OpenAI-Organization": "org-x",
    "OpenAI-Project": "proj_x",
    "Origin": "http://localhost",
    "Referer": "http://localhost/",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Dest": "empty",
}
KEPT = {"anthropic-beta": "one,two", "X-App": "cli", "User-Agent": "test", "X-Custom": "aib_ is our prefix"}
OWN_KEY = {"Authorization": "Bearer sk-own-0123456789"}
TOKEN = "aib_" + "x" * 43


def received_headers(
    make_app: MakeApp, upstream: Upstream, route: str, headers: dict[str, str], **settings: object
) -> dict[str, str]:
    provider = {"type": "openai", "base_url": f"{upstream.url}/v1", "keys": [{"value": "sk-central"}]}
    app = make_app(providers=[provider], **settings)
    app.extensions["aibridge"].actor_loader(lambda request: Actor("alice"))
    client = app.test_client()
    upstream.enqueue(http_response(200, b"{}"))
    method = "GET" if route == "models" else "POST"
    data = b"" if method == "GET" else json.dumps({"model": "m", "messages": []}).encode()
    url = f"{PREFIX}/openai/v1/{route}"
    assert client.open(url, method=method, data=data, headers=headers, buffered=True).status_code == 200
    (received,) = upstream.requests
    return {name: received.header(name) for name in received.names()}


@pytest.mark.parametrize("route", ["chat/completions", "models"])
def test_a_central_key_is_not_judged_by_the_clients_account(
    make_app: MakeApp, upstream: Upstream, route: str
) -> None:
    received = received_headers(make_app, upstream, route, {**IDENTITY, **ACCOUNT, **KEPT})
    assert not {name.lower() for name in [*IDENTITY, *ACCOUNT]} & set(received)
    assert {name: received[name.lower()] for name in KEPT} == KEPT
    assert received["authorization"] == "Bearer sk-central"


@pytest.mark.parametrize("route", ["chat/completions", "models"])
def test_a_users_own_key_goes_out_with_the_users_account(
    make_app: MakeApp, upstream: Upstream, route: str
) -> None:
    received = received_headers(make_app, upstream, route, {**IDENTITY, **ACCOUNT, **OWN_KEY})
    assert not {name.lower() for name in IDENTITY} & set(received)
    assert {name: received[name.lower()] for name in ACCOUNT} == ACCOUNT
    assert received["authorization"] == OWN_KEY["Authorization"]


@pytest.mark.parametrize("value", [TOKEN, f"Bearer {TOKEN}", f'"{TOKEN}"', f"a, {TOKEN}", f"x={TOKEN}; y"])
@pytest.mark.parametrize("name", ["X-Api-Token", "Sec-WebSocket-Protocol", "Ocp-Apim-Subscription-Key"])
def test_a_gateway_token_reaches_no_provider(
    make_app: MakeApp, upstream: Upstream, name: str, value: str
) -> None:
    received = received_headers(make_app, upstream, "chat/completions", {name: value, **KEPT})
    assert TOKEN not in str(received)
    assert received["x-custom"] == KEPT["X-Custom"]


def test_headers_that_the_settings_name_reach_no_provider(make_app: MakeApp, upstream: Upstream) -> None:
    headers = {"X-Employee": "7", "X-Team": "t"}
    received = received_headers(make_app, upstream, "models", headers, drop_headers=["X-EMPLOYEE"])
    assert "x-employee" not in received
    assert received["x-team"] == "t"
