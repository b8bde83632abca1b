"""Who is let in."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from aibridge_flask import Actor, ConfigError
from tests.conftest import MakeApp
from tests.support.server import PREFIX
from tests.support.upstream import Upstream, answer

MESSAGES = f"{PREFIX}/anthropic/v1/messages"
ASK = b'{"model":"m","messages":[]}'


@pytest.fixture
def client(make_app: MakeApp) -> FlaskClient:
    return make_app().test_client()


@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        ("127.0.0.1", {"Host": "localhost:8080"}),
        ("127.8.8.8", {"Host": "127.0.0.1"}),
        ("::1", {"Host": "[::1]:8080"}),
        ("::ffff:127.0.0.1", {"Host": "my.localhost"}),
        ("127.0.0.1", {"Host": "localhost", "Origin": "http://localhost:3000"}),
    ],
)
def test_a_direct_loopback_caller_is_local(
    client: FlaskClient, upstream: Upstream, peer: str, headers: dict[str, str]
) -> None:
    upstream.say(answer(200, b"{}"))
    response = client.post(
        MESSAGES, data=ASK, buffered=True, headers=headers, environ_base={"REMOTE_ADDR": peer}
    )
    assert response.status_code == 200
    found = client.get(f"{PREFIX}/interceptions").get_json()["results"][0]
    assert found["initiator"] == {"id": "local", "username": "local"}


@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        ("10.0.0.1", {"Host": "localhost"}),
        ("", {"Host": "localhost"}),
        ("127.0.0.1", {"Host": "evil.example"}),
        ("127.0.0.1", {"Host": "localhost.evil.example"}),
        ("127.0.0.1", {"Host": "localhost", "Origin": "https://evil.example"}),
        ("127.0.0.1", {"Host": "localhost", "Origin": "null"}),
        ("127.0.0.1", {"Host": "localhost", "Origin": ""}),
        ("127.0.0.1", {"Host": "localhost", "X-Forwarded-For": "127.0.0.1"}),
        ("127.0.0.1", {"Host": "localhost", "X-Forwarded-Whatever": "1"}),
        ("127.0.0.1", {"Host": "localhost", "Forwarded": "for=127.0.0.1"}),
        ("127.0.0.1", {"Host": "localhost", "X-Real-IP": "127.0.0.1"}),
        ("127.0.0.1", {"Host": "localhost", "Via": "1.1 proxy"}),
    ],
)
@pytest.mark.parametrize("path", [MESSAGES, f"{PREFIX}/anthropic/v1/models", f"{PREFIX}/interceptions"])
def test_anybody_else_is_refused(
    client: FlaskClient, upstream: Upstream, peer: str, headers: dict[str, str], path: str
) -> None:
    method = "POST" if path == MESSAGES else "GET"
    response = client.open(
        path,
        method=method,
        data=ASK if method == "POST" else None,
        headers=headers,
        environ_base={"REMOTE_ADDR": peer},
    )
    assert response.status_code == 403
    assert "auth.mode" in response.get_data(as_text=True)
    assert upstream.heard == []


@pytest.mark.parametrize("path", ["healthz", "readyz"])
def test_health_needs_no_identity(client: FlaskClient, path: str) -> None:
    response = client.get(f"{PREFIX}/{path}", environ_base={"REMOTE_ADDR": "10.0.0.1"})
    assert response.get_json() == {"status": "ok"}


def test_a_hosts_loader_takes_the_modes_place(make_app: MakeApp, upstream: Upstream) -> None:
    app = make_app()

    @app.extensions["aibridge"].actor_loader
    def load(request: object) -> Actor | None:
        name = request.headers.get("X-Who")
        return Actor(name, {"username": name.title(), "team": "core"}, admin=name == "root") if name else None

    client = app.test_client()
    for name in ("alice", "bob"):
        upstream.say(answer(200, b"{}"))
        sent = client.post(
            MESSAGES,
            data=ASK,
            buffered=True,
            headers={"X-Who": name},
            environ_base={"REMOTE_ADDR": "10.0.0.1"},
        )
        assert sent.status_code == 200
    refused = client.post(MESSAGES, data=ASK)
    assert refused.status_code == 401
    assert refused.get_json()["error"]["type"] == "authentication_error"
    assert client.get(f"{PREFIX}/interceptions").status_code == 401
    seen = client.get(f"{PREFIX}/interceptions", headers={"X-Who": "alice"}).get_json()
    assert [one["initiator"] for one in seen["results"]] == [{"id": "alice", "username": "Alice"}]
    assert seen["results"][0]["metadata"] == {"username": "Alice", "team": "core"}
    everything = client.get(f"{PREFIX}/interceptions", headers={"X-Who": "root"}).get_json()
    assert everything["count"] == 2
    paged = client.get(
        f"{PREFIX}/interceptions?after_id={everything['results'][0]['id']}", headers={"X-Who": "alice"}
    )
    assert paged.status_code == 400


@pytest.mark.parametrize("mode", ["token", "header"])
def test_a_mode_that_is_not_there_yet_never_lets_anybody_in(make_app: MakeApp, mode: str) -> None:
    with pytest.raises(ConfigError, match=r"auth\.mode"):
        make_app(auth={"mode": mode})
