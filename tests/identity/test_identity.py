"""Identity: who may use the bridge, and as which actor."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from flask.testing import FlaskClient
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import TestResponse

from aibridge_flask import Actor
from aibridge_flask.cli import aibridge
from aibridge_flask.headers import mask_secret
from tests.conftest import MakeApp
from tests.support.server import PREFIX
from tests.support.upstream import Upstream, http_response

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
    upstream.enqueue(http_response(200, b"{}"))
    response = client.post(
        MESSAGES, data=ASK, buffered=True, headers=headers, environ_base={"REMOTE_ADDR": peer}
    )
    assert response.status_code == 200
    record = client.get(f"{PREFIX}/interceptions").get_json()["results"][0]
    assert record["initiator"] == {"id": "local", "username": "local"}


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
def test_other_callers_are_refused(
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
    assert upstream.requests == []


@pytest.mark.parametrize("path", ["healthz", "readyz"])
def test_health_needs_no_identity(client: FlaskClient, path: str) -> None:
    response = client.get(f"{PREFIX}/{path}", environ_base={"REMOTE_ADDR": "10.0.0.1"})
    assert response.get_json()["status"] == "ok"


def test_a_hosts_actor_loader_replaces_the_auth_mode(make_app: MakeApp, upstream: Upstream) -> None:
    app = make_app()

    @app.extensions["aibridge"].actor_loader
    def load(request: object) -> Actor | None:
        name = request.headers.get("X-Who")
        return Actor(name, {"username": name.title(), "team": "core"}, admin=name == "root") if name else None

    client = app.test_client()
    for name in ("alice", "bob"):
        upstream.enqueue(http_response(200, b"{}"))
        response = client.post(
            MESSAGES,
            data=ASK,
            buffered=True,
            headers={"X-Who": name},
            environ_base={"REMOTE_ADDR": "10.0.0.1"},
        )
        assert response.status_code == 200
    refused = client.post(MESSAGES, data=ASK)
    assert refused.status_code == 401
    assert refused.get_json()["error"]["type"] == "authentication_error"
    assert client.get(f"{PREFIX}/interceptions").status_code == 401
    own = client.get(f"{PREFIX}/interceptions", headers={"X-Who": "alice"}).get_json()
    assert [record["initiator"] for record in own["results"]] == [{"id": "alice", "username": "Alice"}]
    assert own["results"][0]["metadata"] == {"username": "Alice", "team": "core"}
    all_records = client.get(f"{PREFIX}/interceptions", headers={"X-Who": "root"}).get_json()
    assert all_records["count"] == 2
    paged = client.get(
        f"{PREFIX}/interceptions?after_id={all_records['results'][0]['id']}", headers={"X-Who": "alice"}
    )
    assert paged.status_code == 400


def ask(client: FlaskClient, upstream: Upstream, peer: str = "10.0.0.1", **headers: str) -> TestResponse:
    upstream.enqueue(http_response(200, b"{}"))
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(MESSAGES, data=ASK, headers=named, environ_base={"REMOTE_ADDR": peer}, buffered=True)


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`aibridge` on the database of `make_app`."""
    monkeypatch.setenv("AIBRIDGE_DATABASE_URL", f"sqlite:///{tmp_path}/records.db")
    return lambda *arguments: CliRunner().invoke(aibridge, arguments)


@pytest.fixture
def token(cli: Callable[..., Result]) -> str:
    return cli("token", "create", "--user", "alice").stdout.strip()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The token loader's clock, in seconds."""
    seconds = [1000.0]
    monkeypatch.setattr("aibridge_flask.identity.token.monotonic", lambda: seconds[0])
    return seconds


@pytest.mark.parametrize(
    "header", ["X-AIBridge-Token", "X-Coder-AI-Governance-Token", "X-Api-Key", "Authorization"]
)
def test_a_token_in_any_header_identifies_the_actor(
    make_app: MakeApp, upstream: Upstream, token: str, cli: Callable[..., Result], header: str
) -> None:
    app = make_app(auth={"mode": "token"})
    value = f"Bearer {token}" if header == "Authorization" else token
    assert ask(app.test_client(), upstream, **{header: value}).status_code == 200
    received = upstream.requests[0]
    assert received.header("x-api-key") == "sk-ant-central-0123456789"
    assert token not in str(received)
    listing = app.test_client().get(f"{PREFIX}/interceptions", headers={header: value}).get_json()
    assert [record["initiator_id"] for record in listing["results"]] == ["alice"]
    assert token not in str(listing)


def test_a_users_own_key_can_accompany_the_token(make_app: MakeApp, upstream: Upstream, token: str) -> None:
    client = make_app(auth={"mode": "token"}).test_client()
    ask(client, upstream, X_Api_Key=token, Authorization="Bearer users-own")
    ask(client, upstream, X_AIBridge_Token=token, X_Api_Key="users-key")
    assert (upstream.requests[0].header("authorization"), upstream.requests[0].header("x-api-key")) == (
        "Bearer users-own",
        None,
    )
    assert upstream.requests[1].header("x-api-key") == "users-key"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X_Api_Key": "sk-plain"},
        {"Authorization": "Bearer aib_wrong"},
        {"X_AIBridge_Token": "aib_"},
        {"X_Api_Key": "aib_\xff"},
    ],
)
def test_a_missing_or_bad_token_is_401_before_the_body_is_read(
    make_app: MakeApp, upstream: Upstream, headers: dict[str, str]
) -> None:
    client = make_app(auth={"mode": "token"}, max_body_bytes=4).test_client()
    refused = ask(client, upstream, peer="127.0.0.1", **headers)
    assert refused.status_code == 401
    assert refused.get_json()["error"]["type"] == "authentication_error"
    assert refused.headers["x-should-retry"] == "false"
    assert upstream.requests == []
    assert client.get(f"{PREFIX}/interceptions").status_code == 401


@pytest.mark.parametrize(
    ("header", "dress"),
    [
        ("Authorization", "bearer {}"), ("Authorization", "BEARER   {}"), ("Authorization", " Bearer {} "),
        ("X-Api-Key", " {} "), ("X-AIBridge-Token", " {} "),
    ],
)  # fmt: skip
def test_a_token_is_accepted_in_these_dresses(
    make_app: MakeApp, upstream: Upstream, token: str, header: str, dress: str
) -> None:
    client = make_app(auth={"mode": "token"}).test_client()
    assert ask(client, upstream, **{header: dress.format(token)}).status_code == 200
    assert token not in str(vars(upstream.requests[0]))


@pytest.mark.parametrize(
    ("header", "dress"),
    [
        ("X-Api-Key", "Bearer {}"), ("X-Api-Key", '"{}"'), ("X-Api-Key", "{},x"), ("X-Api-Key", "x,{}"),
        ("X-AIBridge-Token", "Bearer {}"), ("X-AIBridge-Token", '"{}"'), ("X-AIBridge-Token", "{0}, {0}"),
        ("Authorization", "{}"), ("Authorization", "Bearer Bearer {}"), ("Authorization", 'Bearer "{}"'),
        ("Authorization", "Bearer {0},Bearer {0}"), ("Authorization", "Basic {}"), ("Authorization", "token {}"),
        ("Cookie", "token={}"), ("Sec-WebSocket-Protocol", "{}"), ("Proxy-Authorization", "Bearer {}"), ("X-Token", "{}"),
    ],
)  # fmt: skip
def test_a_token_in_another_dress_is_401(
    make_app: MakeApp, upstream: Upstream, token: str, header: str, dress: str
) -> None:
    client = make_app(auth={"mode": "token"}).test_client()
    assert ask(client, upstream, **{header: dress.format(token)}).status_code == 401
    assert client.get(f"{PREFIX}/interceptions?key={token}").status_code == 401
    assert upstream.requests == []


def test_a_dedicated_header_without_a_valid_token_is_401(
    make_app: MakeApp, upstream: Upstream, token: str
) -> None:
    client = make_app(auth={"mode": "token"}).test_client()
    assert ask(client, upstream, X_AIBridge_Token="mine", X_Api_Key=token).status_code == 401


def test_admins_see_all_records(
    make_app: MakeApp, upstream: Upstream, token: str, cli: Callable[..., Result]
) -> None:
    client = make_app(auth={"mode": "token"}).test_client()
    boss = cli("token", "create", "--user", "boss", "--admin").stdout.strip()
    ask(client, upstream, X_AIBridge_Token=token)
    ask(client, upstream, X_AIBridge_Token=boss)
    counts = [
        client.get(f"{PREFIX}/interceptions", headers={"X-Api-Key": user_token}).get_json()["count"]
        for user_token in (token, boss)
    ]
    assert counts == [1, 2]


def test_a_revocation_takes_effect_within_30_seconds(
    make_app: MakeApp, upstream: Upstream, token: str, cli: Callable[..., Result], clock: list[float]
) -> None:
    client = make_app(auth={"mode": "token"}).test_client()
    assert ask(client, upstream, X_Api_Key=token).status_code == 200
    id = cli("token", "list").stdout.splitlines()[1].split()[0]
    assert cli("token", "revoke", id).exit_code == 0
    clock[0] += 30
    assert ask(client, upstream, X_Api_Key=token).status_code == 401
    assert "no token" in cli("token", "revoke", id).stderr


def test_an_expired_token_is_refused_at_once(
    make_app: MakeApp, upstream: Upstream, cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_app(auth={"mode": "token"}).test_client()
    token = cli("token", "create", "--user", "bob", "--days", "1").stdout.strip()
    assert ask(client, upstream, X_Api_Key=token).status_code == 200
    tomorrow = datetime.now(UTC) + timedelta(days=1, seconds=1)
    monkeypatch.setattr("aibridge_flask.identity.token.now", lambda: tomorrow)
    assert ask(client, upstream, X_Api_Key=token).status_code == 401


def test_cached_tokens_are_accepted_while_the_database_is_away(
    make_app: MakeApp, upstream: Upstream, token: str, clock: list[float], tmp_path: Path
) -> None:
    app = make_app(auth={"mode": "token"})
    client = app.test_client()
    models = f"{PREFIX}/anthropic/v1/models"  # passthrough needs a token and no record
    upstream.handler = lambda received: [http_response(200, b"{}")]

    def status(value: str) -> int:
        return client.get(models, headers={"X-Api-Key": value}, buffered=True).status_code

    assert status(token) == 200
    (tmp_path / "records.db").rename(tmp_path / "elsewhere.db")
    (tmp_path / "records.db").mkdir()
    clock[0] += 60
    assert status(token) == 200
    assert status("aib_unknown") == 503
    clock[0] += 900
    assert status(token) == 503


def test_tokens_are_listed_with_their_last_use_and_never_shown(
    make_app: MakeApp, upstream: Upstream, token: str, cli: Callable[..., Result], tmp_path: Path
) -> None:
    app = make_app(auth={"mode": "token"})
    assert token.startswith("aib_")
    assert cli("token", "list").stdout.splitlines()[1].split()[1:] == [
        "alice",
        mask_secret(token),
        "-",
        "-",
        "-",
    ]
    before = datetime.now(UTC).replace(microsecond=0)
    ask(app.test_client(), upstream, X_Api_Key=token)
    app.extensions["aibridge"].close(app)
    last_use = cli("token", "list").stdout.splitlines()[1].split()[4]
    assert before <= datetime.fromisoformat(last_use) <= datetime.now(UTC)
    assert token.encode() not in (tmp_path / "records.db").read_bytes()


def test_the_token_command_rejects_wrong_arguments(
    cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("token", "create").exit_code == 2
    assert cli("token", "create", "--user", " ").exit_code == 2
    assert cli("token", "create", "--user", "x", "--days", "-1").exit_code == 2


def test_a_trusted_proxy_names_the_user(make_app: MakeApp, upstream: Upstream) -> None:
    auth = {
        "mode": "header",
        "actor_header": "X-User",
        "trusted_proxies": ["10.1.0.0/16", "::1/128"],
        "admin_actors": ["root"],
    }
    client = make_app(auth=auth).test_client()
    assert (
        ask(client, upstream, "10.1.2.3", X_User="ren\xc3\xa9", X_Forwarded_For="1.2.3.4").status_code == 200
    )
    assert "x-user" not in upstream.requests[0].names()
    assert ask(client, upstream, "::ffff:10.1.2.3", X_User="root").status_code == 200
    listing = client.get(
        f"{PREFIX}/interceptions", headers={"X-User": "root"}, environ_base={"REMOTE_ADDR": "::1"}
    ).get_json()
    assert [record["initiator_id"] for record in listing["results"]] == ["root", "ren\u00e9"]
    for nobody in ({}, {"X_User": " "}, {"X_User": "a\x07"}, {"X_User": "a" * 257}):
        assert ask(client, upstream, "10.1.2.3", **nobody).status_code == 401
    for stranger in ("10.2.0.1", "127.0.0.1", ""):
        assert ask(client, upstream, stranger, X_User="root").status_code == 403
    assert len(upstream.requests) == 2


def test_a_unix_sockets_peer_can_be_trusted(make_app: MakeApp, upstream: Upstream) -> None:
    client = make_app(auth={"mode": "header", "trusted_proxies": ["unix:"]}).test_client()
    assert ask(client, upstream, "", X_Remote_User="ann").status_code == 200
    assert ask(client, upstream, "127.0.0.1", X_Remote_User="ann").status_code == 403


def test_mode_header_looks_at_the_connections_peer_behind_proxy_fix(
    make_app: MakeApp, upstream: Upstream
) -> None:
    app = make_app(auth={"mode": "header", "trusted_proxies": ["10.1.0.0/16"]})
    app.wsgi_app = ProxyFix(app.wsgi_app)
    client = app.test_client()
    user = {"X_Remote_User": "ann"}
    assert ask(client, upstream, "10.1.2.3", X_Forwarded_For="203.0.113.9", **user).status_code == 200
    assert ask(client, upstream, "203.0.113.9", X_Forwarded_For="10.1.2.3", **user).status_code == 403
    assert ask(client, upstream, "", X_Forwarded_For="10.1.2.3", **user).status_code == 403


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.1.2.3", ""])
def test_mode_local_is_not_fooled_by_proxy_fix(make_app: MakeApp, upstream: Upstream, peer: str) -> None:
    app = make_app()
    app.wsgi_app = ProxyFix(app.wsgi_app, x_host=1)
    client = app.test_client()
    assert ask(client, upstream, peer, X_Forwarded_For="127.0.0.1").status_code == 403
    assert ask(client, upstream, peer, X_Forwarded_Host="localhost").status_code == 403
