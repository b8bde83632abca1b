"""Mounting the bridge: other prefixes, below a host's path, several in one process."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import Client

from tests.conftest import MakeApp, Start
from tests.support.dialogue import ASK_BLOCKING
from tests.support.server import PREFIX
from tests.support.upstream import Upstream, http_response

LOCAL = {"REMOTE_ADDR": "127.0.0.1"}


def check(client: Client | FlaskClient, upstream: Upstream, base: str, **headers: str) -> None:
    """Checks that everything is served below `base`, and nothing elsewhere."""
    common: Any = {"environ_base": LOCAL, "headers": headers, "buffered": True}
    for path, target in (
        ("/anthropic/v1/messages?beta=true", "/v1/messages?beta=true"),
        ("/anthropic/v1/models/a%2Fb", "/v1/models/a%2Fb"),
        ("/openai/v1/chat/completions", "/v1/chat/completions"),
        ("/second/v1/messages/count_tokens", "/base/v1/messages/count_tokens"),
    ):
        upstream.enqueue(http_response(200, b"{}"))
        response = client.post(
            base + path, data=ASK_BLOCKING, **{**common, "headers": {"X-Api-Key": "x", **headers}}
        )
        assert (response.status_code, upstream.requests[-1].target) == (200, target)
    count = len(upstream.requests)
    assert client.get(f"{base}/healthz", **common).get_json() == {"status": "ok"}
    assert client.get(f"{base}/interceptions", **common).get_json()["count"] == 2
    assert client.post(f"{base}/anthropic/v1/nowhere", **common).get_json()["error"]["message"] == (
        "route not supported: POST /v1/nowhere"
    )
    for path in (
        "/anthropic/v1/messages",
        "/x/anthropic/v1/messages",
        f"{base}{base}/anthropic/v1/messages",
    ):
        assert client.post(path, data=ASK_BLOCKING, **common).status_code == 404
    assert len(upstream.requests) == count


def as_wsgi(path: str) -> str:
    """Servers hand bytes over as Latin-1 text (PEP 3333)."""
    return path.encode().decode("latin-1")


@pytest.mark.parametrize("prefix", ["/ai", "/a/b-c/d.e/~f_g", "/openai", "/v1", "/anthropic/v1/messages"])
def test_the_prefix_can_be_any_path(make_app: MakeApp, upstream: Upstream, prefix: str) -> None:
    client = make_app(url_prefix=prefix).test_client()
    check(client, upstream, prefix)
    assert f"http://localhost{prefix}/anthropic\n" in client.get("/").get_data(as_text=True)


@pytest.mark.parametrize("mount", ["/below", "/below/it", "/be low/\u00e9", PREFIX])
def test_it_can_be_mounted_below_a_path(make_app: MakeApp, upstream: Upstream, mount: str) -> None:
    app = make_app()
    client = Client(DispatcherMiddleware(Flask("outer").wsgi_app, {as_wsgi(mount): app.wsgi_app}))
    check(client, upstream, quote(mount) + PREFIX)
    if mount.isascii() and " " not in mount:
        page = client.get(f"{mount}/", environ_base=LOCAL).get_data(as_text=True)
        assert f"http://localhost{mount}{PREFIX}/anthropic\n" in page


@pytest.mark.parametrize("prefix", [PREFIX, "/below/it"])
def test_a_proxys_prefix_only_changes_shown_addresses(
    make_app: MakeApp, upstream: Upstream, prefix: str
) -> None:
    """The proxy strips its prefix before it forwards a request."""
    app = make_app(url_prefix=prefix, auth={"mode": "header", "admin_actors": ["ann"]})
    client = Client(ProxyFix(app.wsgi_app, x_for=0, x_prefix=1))
    headers = {"X-Forwarded-Prefix": "/below", "X-Remote-User": "ann"}
    check(client, upstream, prefix, **headers)
    page = client.get("/", headers=headers).get_data(as_text=True)
    assert f"http://localhost/below{prefix}/anthropic\n" in page


def test_several_bridges_can_be_mounted_below_one_host(make_app: MakeApp, upstream: Upstream) -> None:
    first, second = make_app(), make_app(auth={"byok": "reject"})
    client = Client(
        DispatcherMiddleware(Flask("outer").wsgi_app, {"/one": first.wsgi_app, "/two": second.wsgi_app})
    )
    upstream.handler = lambda received: [http_response(200, b"{}")]
    for mount, expected in (("/one", 200), ("/two", 403)):
        response = client.post(
            f"{mount}{PREFIX}/anthropic/v1/messages",
            data=ASK_BLOCKING,
            headers={"X-Api-Key": "sk-own"},
            environ_base=LOCAL,
            buffered=True,
        )
        assert response.status_code == expected
    first.extensions["aibridge"].drain(first)
    ready = [client.get(f"{mount}{PREFIX}/readyz").status_code for mount in ("/one", "/two")]
    assert ready == [503, 200]


@pytest.mark.parametrize(
    ("kind", "options", "environ"),
    [
        ("gevent", (), {"SCRIPT_NAME": "/below/it"}),
        ("gthread", (), {"SCRIPT_NAME": "/below/it"}),
        ("waitress", ("--url-prefix=/below/it",), {}),
    ],
)
def test_servers_can_mount_it_below_a_path(
    start: Start, upstream: Upstream, kind: str, options: tuple[str, ...], environ: dict[str, str]
) -> None:
    prefix = f"/below/it{PREFIX}"
    server = start(*options, kind=kind, environ=environ, prefix=prefix)
    for path, target in (
        ("/anthropic/v1/messages?x=1", "/v1/messages?x=1"),
        ("/anthropic/v1/models/a%2Fb", "/v1/models/a%2Fb"),
    ):
        upstream.enqueue(http_response(200, b'{"a":1}'))
        client = server.connect()
        client.send("POST", path, ASK_BLOCKING)
        assert client.body(client.head()[1]) == (b'{"a":1}', True)
        assert upstream.requests[-1].target == target
    client = server.connect()
    client.send("POST", "/anthropic/v1/nowhere")
    body, _ = client.body(client.head()[1])
    assert json.loads(body)["error"]["message"] == "route not supported: POST /v1/nowhere"
