"""A host Flask application with customizations: neither it nor the bridge disturbs the other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, abort, jsonify, redirect, request, session
from flask.json.provider import DefaultJSONProvider
from flask_wtf.csrf import CSRFProtect
from werkzeug.routing import BaseConverter
from werkzeug.test import TestResponse

from aibridge_flask import Actor, AIBridge
from tests.conftest import providers
from tests.support.dialogue import ASK, ASK_BLOCKING, END, START
from tests.support.server import PREFIX
from tests.support.upstream import LAST_CHUNK, Upstream, chunk, http_response, stream_head

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "flask.md").read_text()
MESSAGES, CHAT = f"{PREFIX}/anthropic/v1/messages", f"{PREFIX}/openai/v1/chat/completions"
MODELS = f"{PREFIX}/anthropic/v1/models"

Change = Callable[[Flask], None]
MakeHost = Callable[..., Flask]


@pytest.fixture
def make_host(tmp_path: Path, upstream: Upstream, database_url: str) -> Iterator[MakeHost]:
    """Makes a host with its pages; `changes` customize it before the bridge is added."""
    apps: list[Flask] = []

    def make(*changes: Change, **options: Any) -> Flask:
        app = Flask("host", **options)
        app.secret_key = "s"
        app.config["AIBRIDGE"] = {
            "database_url": database_url,
            "spool_dir": str(tmp_path / "spool"),
            "providers": providers(upstream.url),
            "max_body_bytes": 1000,
        }
        for change in changes:
            change(app)
        host_options = {"host": "localhost"} if app.url_map.host_matching else {}
        app.add_url_rule("/", "home", lambda: jsonify(page="home"), **host_options)
        app.add_url_rule(
            "/form", "form", lambda: str(len(request.get_data())), methods=["POST"], **host_options
        )
        app.add_url_rule("/broken", "broken", lambda: 1 / 0, **host_options)
        AIBridge(app)
        apps.append(app)
        return app

    yield make
    for app in apps:
        app.extensions["aibridge"].close(app)


def own_error_pages(app: Flask) -> None:
    for status in (400, 401, 403, 404, 405, 413, 500, 502):
        app.register_error_handler(status, lambda error, status=status: (f"<h1>own {status}</h1>", status))


def own_handler_for_all_exceptions(app: Flask) -> None:
    app.register_error_handler(Exception, lambda error: ({"own": str(error)}, getattr(error, "code", 500)))


def own_limit(app: Flask) -> None:
    app.config["MAX_CONTENT_LENGTH"] = 10


def own_json(app: Flask) -> None:
    class Shouting(DefaultJSONProvider):
        def dumps(self, obj: Any, **kwargs: Any) -> str:
            return super().dumps({"shouted": obj}).upper()

    app.json = Shouting(app)


def own_server_name(app: Flask) -> None:
    app.config.update(SERVER_NAME="localhost", APPLICATION_ROOT="/root", PREFERRED_URL_SCHEME="https")


def own_converters(app: Flask) -> None:
    class Numbers(BaseConverter):
        regex = "[0-9]+"

    app.url_map.converters.update(numbers=Numbers, default=Numbers)
    app.url_map.strict_slashes = app.url_map.merge_slashes = True


def own_hooks(app: Flask) -> None:
    """Hooks before and after each request."""
    app.before_request(lambda: None)
    app.url_value_preprocessor(lambda endpoint, values: None)
    app.teardown_request(lambda error: session.clear())
    app.teardown_appcontext(lambda error: None)

    @app.after_request
    def mark(response: Response) -> Response:
        response.headers["X-Host"] = "1"
        return response


CUSTOMIZATIONS = [
    own_error_pages,
    own_handler_for_all_exceptions,
    own_limit,
    own_json,
    own_server_name,
    own_converters,
    own_hooks,
]


@pytest.mark.parametrize("host_matching", [False, True])
@pytest.mark.parametrize("customize", CUSTOMIZATIONS)
def test_the_bridge_works_in_a_customized_host(
    make_host: MakeHost, upstream: Upstream, customize: Change, host_matching: bool
) -> None:
    options = {"static_host": "localhost"} if host_matching else {}
    client = make_host(customize, host_matching=host_matching, **options).test_client()
    upstream.enqueue(http_response(200, b'{"a": 1.0}', "X-Own: 1"))
    response = client.post(MESSAGES, data=ASK_BLOCKING, buffered=True)
    assert (response.status_code, response.get_data(), response.headers["X-Own"]) == (200, b'{"a": 1.0}', "1")
    assert (upstream.requests[0].target, upstream.requests[0].body) == ("/v1/messages", ASK_BLOCKING)
    upstream.enqueue(stream_head(), chunk(START), chunk(END), LAST_CHUNK)
    assert client.post(MESSAGES, data=ASK, buffered=True).get_data() == START + END
    upstream.enqueue(http_response(500, b"the upstream's own"))
    assert client.get(f"{MODELS}/a%2Fb", buffered=True).get_data() == b"the upstream's own"
    assert upstream.requests[2].target == "/v1/models/a%2Fb"
    errors = [
        client.post(MESSAGES, data=b"x" * 1001),
        client.post(MESSAGES, data=b"no JSON"),
        client.put(MESSAGES),
        client.get(f"{PREFIX}/off/x"),
    ]
    assert [error.status_code for error in errors] == [413, 400, 404, 503]
    assert [error.get_json()["error"]["type"] for error in errors] == [
        "request_too_large",
        "invalid_request_error",
        "not_found_error",
        "api_error",
    ]
    for path in ("", "/", "/nobody", "/nobody/v1"):
        unknown = client.post(PREFIX + path)
        assert unknown.status_code == 404
    assert client.get(f"{PREFIX}/nobody/v1").get_json()["error"]["code"] == "provider_not_found"
    assert client.get(f"{PREFIX}/healthz").get_data() == b'{"status":"ok"}'
    assert client.get(f"{PREFIX}/readyz").get_data().startswith(b'{"status":"ok"')
    assert client.get(f"{PREFIX}/interceptions").get_json()["count"] == 2
    assert client.get(f"{PREFIX}/interceptions?limit=0").get_json()["validations"][0]["field"] == "limit"


@pytest.mark.parametrize("customize", CUSTOMIZATIONS)
def test_a_hosts_pages_are_the_same_without_the_bridge(
    make_host: MakeHost, monkeypatch: pytest.MonkeyPatch, customize: Change
) -> None:
    def fetch_pages(client: Any) -> list[object]:
        responses = [
            client.get("/"),
            client.post("/"),
            client.options("/"),
            client.head("/"),
            client.get("//"),
            client.get("/nowhere"),
            client.get("/broken"),
            client.post("/form", data=b"x" * 11),
            client.post("/form", data=b"x" * 2000),
            client.get("/", headers={"Upgrade": "websocket", "Connection": "Upgrade"}),
        ]
        return [(response.status, sorted(response.headers), response.get_data()) for response in responses]

    with_bridge = fetch_pages(make_host(customize).test_client())
    monkeypatch.setattr(
        "tests.test_host_app.AIBridge", lambda app: app.extensions.update(aibridge=NoBridge())
    )
    assert with_bridge == fetch_pages(make_host(customize).test_client())
    assert [status for status, _, _ in with_bridge][:2] == ["200 OK", "405 METHOD NOT ALLOWED"]


class NoBridge:
    def close(self, app: Flask) -> None:
        """Closes nothing."""


def with_login(app: Flask) -> None:
    """Users log in with a cookie; pages are for logged-in users only."""
    own_error_pages(app)

    @app.before_request
    def require_login() -> object:
        own = not (request.blueprint or "").startswith("aibridge")
        return redirect("/login") if own and request.path != "/login" and "user" not in session else None

    @app.post("/login")
    def login() -> str:
        if request.form["password"] != "right":
            abort(403)
        session["user"] = request.form["user"]
        return "welcome"


def test_the_hosts_login_identifies_the_actor(make_host: MakeHost, upstream: Upstream) -> None:
    app = make_host(with_login)
    bridge = app.extensions["aibridge"]
    bridge.actor_loader(lambda request: Actor(session["user"]) if "user" in session else None)
    upstream.handler = lambda received: [http_response(200, b"{}")]
    for user in ("ann", "bob"):
        client = app.test_client()
        assert client.get("/").location == "/login"
        response = client.post(MESSAGES, data=ASK_BLOCKING)
        assert (response.status_code, response.get_json()["error"]["type"]) == (401, "authentication_error")
        assert client.get(f"{PREFIX}/healthz").status_code == 200
        assert (
            client.post("/login", data={"user": user, "password": "wrong"}).get_data() == b"<h1>own 403</h1>"
        )
        assert client.post("/login", data={"user": user, "password": "right"}).status_code == 200
        assert client.get("/").get_json() == {"page": "home"}
        assert client.post(MESSAGES, data=ASK_BLOCKING, buffered=True).status_code == 200
        listing = client.get(f"{PREFIX}/interceptions").get_json()
        assert [record["initiator_id"] for record in listing["results"]] == [user]
    assert all("cookie" not in received.names() for received in upstream.requests)


LOADER_ERRORS = [
    KeyError("user"), IndexError(), AttributeError("x"), PermissionError(), TimeoutError(), ValueError("x"),
]  # fmt: skip


def raise_(error: Exception) -> Actor:
    raise error


def send(app: Flask, path: str) -> TestResponse:
    ask = {"method": "POST", "data": ASK_BLOCKING} if path.startswith((MESSAGES, CHAT)) else {}
    return app.test_client().open(path, **ask)


@pytest.mark.parametrize("path", [MESSAGES, CHAT, MODELS, f"{PREFIX}/interceptions"])
@pytest.mark.parametrize("error", LOADER_ERRORS, ids=repr)
def test_what_the_hosts_actor_loader_raises_reaches_the_hosts_log_and_debugger(
    make_host: MakeHost, upstream: Upstream, caplog: pytest.LogCaptureFixture, path: str, error: Exception
) -> None:
    app = make_host()
    app.extensions["aibridge"].actor_loader(lambda request: raise_(error))
    assert send(app, path).status_code == 500
    assert [record.exc_info[1] for record in caplog.records if record.name == "host"] == [error]
    app.testing = True
    with pytest.raises(type(error)) as caught:
        send(app, path)
    assert caught.value is error
    assert upstream.requests == []


@pytest.mark.parametrize("path", [MESSAGES, CHAT, MODELS, f"{PREFIX}/interceptions"])
@pytest.mark.parametrize("error", LOADER_ERRORS, ids=repr)
def test_what_the_hosts_actor_loader_raises_reaches_the_hosts_handlers(
    make_host: MakeHost, path: str, error: Exception
) -> None:
    app = make_host(lambda app: app.register_error_handler(type(error), lambda error: ("own", 418)))
    app.extensions["aibridge"].actor_loader(lambda request: raise_(error))
    response = send(app, path)
    assert (response.status_code, response.get_data()) == (418, b"own")


@pytest.mark.parametrize("path", [MESSAGES, MODELS, f"{PREFIX}/interceptions"])
def test_a_hosts_actor_loader_may_abort_and_redirect(make_host: MakeHost, path: str) -> None:
    app = make_host(own_error_pages)
    app.extensions["aibridge"].actor_loader(
        lambda request: abort(403 if "denied" in request.args else redirect("/login"))
    )
    assert send(app, path).location == "/login"
    assert send(app, f"{path}?denied").get_data() == b"<h1>own 403</h1>"


def test_the_readmes_exemption_from_csrf_protection_works(make_host: MakeHost, upstream: Upstream) -> None:
    app = make_host(lambda app: app.config.update(WTF_CSRF_SECRET_KEY="s"))
    csrf = CSRFProtect(app)
    client = app.test_client()
    upstream.handler = lambda received: [http_response(200, b"{}")]
    assert client.post(MESSAGES, data=ASK_BLOCKING, buffered=True).status_code == 400
    (code,) = re.findall(r"```python\n(for name, blueprint .*?)```", PAGE, re.DOTALL)
    exec(code, {"app": app, "csrf": csrf})
    for path in (MESSAGES, CHAT, f"{PREFIX}/second/v1/messages/count_tokens"):
        response = client.post(path, data=ASK_BLOCKING, headers={"X-Api-Key": "x"}, buffered=True)
        assert response.status_code == 200
    assert client.post(f"{PREFIX}/nobody/x").get_json()["error"]["code"] == "provider_not_found"
    assert client.post("/form", data=b"x").status_code == 400
