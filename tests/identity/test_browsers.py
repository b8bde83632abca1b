"""A web page cannot reach a bridge in mode `local` through its visitor's browser."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient

from aibridge_flask.cli import aibridge
from tests.conftest import MakeApp
from tests.support.server import PREFIX
from tests.support.upstream import Upstream, http_response

MESSAGES = f"{PREFIX}/anthropic/v1/messages"
COUNT = f"{PREFIX}/anthropic/v1/messages/count_tokens"
POSTS = (MESSAGES, COUNT, f"{PREFIX}/openai/v1/responses", f"{PREFIX}/openai/v1/conversations")
GETS = (f"{PREFIX}/anthropic/v1/models", f"{PREFIX}/openai/v1/responses/resp_1", f"{PREFIX}/interceptions")
EVIL = "https://evil.example"
REBOUND = {"Host": "evil.example:8080", "Sec-Fetch-Site": "same-origin"}
IMAGE = {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-User": "?1"}
UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
PAGES_GETS = {
    "image": {**IMAGE, "Sec-Fetch-Site": "cross-site"},
    "image on another port": {**IMAGE, "Sec-Fetch-Site": "same-site"},
    "link": {**NAVIGATION, "Sec-Fetch-Site": "cross-site"},
    "fetch": {"Origin": EVIL, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"},
    "fetch of a sandboxed frame": {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
    "fetch of an older browser": {"Origin": EVIL},
    "two headers": {"Sec-Fetch-Site": "none, cross-site"},
    "rebound image": {**IMAGE, **REBOUND},
    "rebound fetch": {**REBOUND, "Origin": "http://evil.example:8080"},
}
PAGES_POSTS = {
    "form": {**NAVIGATION, "Origin": EVIL, "Sec-Fetch-Site": "cross-site", "Content-Type": "text/plain"},
    "form without origin": {**NAVIGATION, "Sec-Fetch-Site": "cross-site", "Content-Type": "text/plain"},
    "form on another port": {**NAVIGATION, "Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"},
    "form of a sandboxed frame": {**NAVIGATION, "Origin": "null"},
    "beacon": {"Origin": EVIL, "Content-Type": "text/plain;charset=UTF-8"},
    **PAGES_GETS,
}


@pytest.fixture
def client(shared_app: MakeApp) -> FlaskClient:
    return shared_app().test_client()


@pytest.mark.parametrize("page", PAGES_GETS)
@pytest.mark.parametrize("path", GETS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_page_gets_nothing(
    client: FlaskClient, upstream: Upstream, path: str, page: str, method: str
) -> None:
    refused = client.open(path, method=method, headers={"Host": "localhost:8080", **PAGES_GETS[page]})
    assert refused.status_code == 403
    assert upstream.requests == []


@pytest.mark.parametrize("page", PAGES_POSTS)
@pytest.mark.parametrize("path", POSTS)
def test_a_page_posts_nothing(client: FlaskClient, upstream: Upstream, path: str, page: str) -> None:
    headers = {"Host": "localhost:8080", **PAGES_POSTS[page]}
    refused = client.post(path, data=b'{"model":"m","messages":[]}', headers=headers)
    assert refused.status_code == 403
    assert "auth.mode" in refused.get_data(as_text=True)
    assert upstream.requests == []


@pytest.mark.parametrize("path", [*POSTS, *GETS, "/"])
def test_a_preflight_allows_nothing(client: FlaskClient, upstream: Upstream, path: str) -> None:
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Private-Network": "true"}
    response = client.options(path, headers={"Host": "localhost:8080", "Origin": EVIL, **asks})
    assert not [name for name, _ in response.headers if name.startswith("Access-Control-")]
    assert upstream.requests == []


@pytest.mark.parametrize("path", [*POSTS, *GETS])
def test_a_page_opens_no_websocket(client: FlaskClient, upstream: Upstream, path: str) -> None:
    response = client.get(path, headers={"Host": "localhost:8080", "Origin": EVIL, **UPGRADE})
    assert response.status_code in (403, 404, 426)
    assert upstream.requests == []


@pytest.mark.parametrize(
    "headers", [NAVIGATION | {"Sec-Fetch-Site": "none"}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Mode": "cors"}]
)  # fmt: skip
def test_who_types_the_address_is_served(client: FlaskClient, headers: dict[str, str]) -> None:
    assert (
        client.get(f"{PREFIX}/interceptions", headers={"Host": "localhost:8080", **headers}).status_code
        == 200
    )


@pytest.fixture
def token(database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AIBRIDGE_DATABASE_URL", database_url)
    return CliRunner().invoke(aibridge, ["token", "create", "--user", "ann"]).stdout.strip()


@pytest.mark.parametrize("mode", ["token", "header"])
@pytest.mark.parametrize("page", PAGES_GETS)
def test_with_another_mode_the_actor_alone_counts(
    make_app: MakeApp, upstream: Upstream, token: str, mode: str, page: str
) -> None:
    client = make_app(auth={"mode": mode}).test_client()
    upstream.enqueue(http_response(200, b"{}"))
    identity = {"token": {"X-AIBridge-Token": token}, "header": {"X-Remote-User": "ann"}}[mode]
    headers = {"Host": "localhost:8080", **PAGES_GETS[page], **identity}
    assert client.get(GETS[0], headers=headers, buffered=True).status_code == 200
    assert client.get(f"{PREFIX}/interceptions", headers=headers).status_code == 200
