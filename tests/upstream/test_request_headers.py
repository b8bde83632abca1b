"""Which of a client's headers reach a provider."""

from __future__ import annotations

import json
from base64 import b64encode

import pytest

from aibridge_flask.model import Actor
from tests.conftest import MakeApp
from tests.support.server import PREFIX
from tests.support.upstream import Upstream, http_response

IDENTITY = {
    "X-Auth-Request-Email": "ann@example.com",
    "X-Forwarded-User": "ann",
    "X-Forwarded-Email": "ann@example.com",
    "X-Forwarded-Groups": "staff",
    "X-Forwarded-Access-Token": "t",
    "Cf-Access-Jwt-Assertion": "t",
    "Cf-Access-Authenticated-User-Email": "ann@example.com",
    "X-Amzn-Oidc-Data": "t",
    "X-Goog-Iap-Jwt-Assertion": "t",
    "X-Goog-Authenticated-User-Email": "ann",
    "X-Ms-Client-Principal": "e30=",
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
ENCODED = "".join(f"%{ord(c):02X}" for c in TOKEN)
BASIC = b64encode(f"user:{TOKEN}".encode()).decode()
DRESSES = [
    TOKEN, f"Bearer {TOKEN}", f"Bearer Bearer {TOKEN}", f'"{TOKEN}"', f"'Bearer {TOKEN}'", f"a, {TOKEN}", f"{TOKEN},a",
    f"x={TOKEN}; y", f"x%3D{TOKEN}", f"Basic {BASIC}", f"basic {BASIC.rstrip('=')}", f"bAsIc \t{BASIC}", f"x,Basic {BASIC}", f"aib_,Basic eDp5, Basic {BASIC}", ENCODED, f"a%20{ENCODED[:20]}{TOKEN[7:]}",
]  # fmt: skip


def received_headers(
    shared_app: MakeApp, upstream: Upstream, route: str, headers: dict[str, str], **settings: object
) -> dict[str, str]:
    provider = {"type": "openai", "base_url": f"{upstream.url}/v1", "keys": [{"value": "sk-central"}]}
    app = shared_app(providers=[provider], **settings)
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
    shared_app: MakeApp, upstream: Upstream, route: str
) -> None:
    received = received_headers(shared_app, upstream, route, {**IDENTITY, **ACCOUNT, **KEPT})
    assert not {name.lower() for name in [*IDENTITY, *ACCOUNT]} & set(received)
    assert {name: received[name.lower()] for name in KEPT} == KEPT
    assert received["authorization"] == "Bearer sk-central"


@pytest.mark.parametrize("route", ["chat/completions", "models"])
def test_a_users_own_key_goes_out_with_the_users_account(
    shared_app: MakeApp, upstream: Upstream, route: str
) -> None:
    received = received_headers(shared_app, upstream, route, {**IDENTITY, **ACCOUNT, **OWN_KEY})
    assert not {name.lower() for name in IDENTITY} & set(received)
    assert {name: received[name.lower()] for name in ACCOUNT} == ACCOUNT
    assert received["authorization"] == OWN_KEY["Authorization"]


@pytest.mark.parametrize("value", DRESSES)
@pytest.mark.parametrize(
    "name",
    ["X-Api-Token", "Sec-WebSocket-Protocol", "Ocp-Apim-Subscription-Key", "Cookie", "Proxy-Authorization", "X-Api-Key"],
)  # fmt: skip
def test_a_gateway_token_reaches_no_provider(
    shared_app: MakeApp, upstream: Upstream, name: str, value: str
) -> None:
    received = received_headers(shared_app, upstream, "chat/completions", {name: value, **KEPT})
    assert not any(part in str(received) for part in (TOKEN, BASIC.rstrip("="), ENCODED[20:]))
    assert received["x-custom"] == KEPT["X-Custom"]
    assert received["authorization"] == "Bearer sk-central"


@pytest.mark.parametrize("value", DRESSES)
@pytest.mark.parametrize("name", ["Authorization", "X-Api-Key"])
@pytest.mark.parametrize("type", ["anthropic", "openai", "copilot"])
def test_a_gateway_token_is_no_credential_for_a_provider(
    shared_app: MakeApp, upstream: Upstream, type: str, name: str, value: str
) -> None:
    """The central key is used, or the request is refused, if there is none or the header may hold more."""
    app = shared_app()
    app.extensions["aibridge"].actor_loader(lambda request: Actor("alice"))
    upstream.handler = lambda received: [http_response(200, b"{}")]
    path = {"anthropic": "anthropic/v1/models", "openai": "openai/v1/models", "copilot": "copilot/models"}[
        type
    ]
    values = {value, f"Bearer {value}"} if name == "Authorization" else {value}
    for sent in values:
        response = app.test_client().get(f"{PREFIX}/{path}", headers={name: sent}, buffered=True)
        assert response.status_code in (200, 401)
        assert TOKEN not in response.get_data(as_text=True)
    assert not any(part in str(vars(received)) for received in upstream.requests for part in (TOKEN, BASIC))


@pytest.mark.parametrize("token", [TOKEN, ENCODED, TOKEN.replace("_", "%5F")])
@pytest.mark.parametrize(
    "target", ["models?key={}", "models?a=b&api_key=%22{}%22", "models/{}", "chat/completions?t=Bearer%20{}"]
)
def test_an_url_with_a_gateway_token_is_refused(
    shared_app: MakeApp, upstream: Upstream, caplog: pytest.LogCaptureFixture, target: str, token: str
) -> None:
    caplog.set_level("INFO")
    app = shared_app()
    app.extensions["aibridge"].actor_loader(lambda request: Actor("alice"))
    url = f"{PREFIX}/openai/v1/{target.format(token)}"
    response = app.test_client().open(url, method="POST" if "chat" in target else "GET")
    assert (response.status_code, response.get_json()["error"]["code"]) == (400, "gateway_token_in_url")
    assert response.headers["x-should-retry"] == "false"
    assert upstream.requests == []
    assert token[9:-9] not in response.get_data(as_text=True)
    assert "gateway_token_in_url" in caplog.text
    assert token[9:-9] not in caplog.text


@pytest.mark.parametrize("value", ["Bearer tid=a1;exp=2,sku=b:c", "bearer  a,b", "Bearer tid=a, exp=2"])
def test_a_credential_with_commas_is_one_credential(
    shared_app: MakeApp, upstream: Upstream, value: str
) -> None:
    received = received_headers(shared_app, upstream, "models", {"Authorization": value})
    assert received["authorization"] == value


@pytest.mark.parametrize(
    "value", ["Bearer one,Bearer two", "Bearer one, Bearer two", "Bearer one,token two", ",Bearer two", "Basic b25l,Bearer two"]
)  # fmt: skip
def test_half_of_what_a_server_joined_is_no_credential(
    shared_app: MakeApp, upstream: Upstream, value: str
) -> None:
    client = shared_app().test_client()
    for path in ("openai/v1/models", "copilot/models", "anthropic/v1/models"):
        response = client.get(f"{PREFIX}/{path}", headers={"Authorization": value})
        assert response.status_code == 401
        assert "several credentials" in response.get_data(as_text=True)
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Authorization", "bearer sk-own-0123456789abcdef"),
        ("Authorization", "BEARER  sk-own-0123456789abcdef"),
        ("Authorization", "Bearer Bearer sk-own-0123456789abcdef"),
        ("Authorization", 'Bearer "sk-own-0123456789abcdef"'),
        ("X-Api-Key", "Bearer sk-own-0123456789abcdef"),
        ("X-Api-Key", "'sk-own-0123456789abcdef'"),
    ],
)
def test_a_secret_that_an_error_repeats_is_masked_in_every_dress(
    make_app: MakeApp, upstream: Upstream, name: str, value: str
) -> None:
    client = make_app().test_client()
    error = b'{"type":"error","error":{"type":"authentication_error","message":"bad key sk-own-0123456789abcdef"}}'
    upstream.enqueue(http_response(401, error))
    asked = json.dumps({"model": "m", "messages": []})
    client.post(f"{PREFIX}/anthropic/v1/messages", data=asked, headers={name: value}, buffered=True)
    assert upstream.requests[0].header(name) == value
    (record,) = client.get(f"{PREFIX}/interceptions").get_json()["results"]
    assert (record["credential_hint"], record["error_message"]) == ("sk-o...cdef", "bad key sk-o...cdef")


def test_headers_that_the_settings_name_reach_no_provider(shared_app: MakeApp, upstream: Upstream) -> None:
    headers = {"X-Employee": "7", "X-Cost-Center": "9", "X-Team": "t", "X-Who": "ann"}
    settings = {
        "drop_headers": ["X-EMPLOYEE", "x_cost_center"],
        "auth": {"mode": "header", "actor_header": "X_Who"},
    }
    received = received_headers(shared_app, upstream, "models", headers, **settings)
    assert not {"x-employee", "x-cost-center", "x-who"} & set(received)
    assert received["x-team"] == "t"
