"""Fixtures. The scripted upstream and gunicorn are started once and told apart by `reset`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask

from aibridge_flask import create_app
from tests.support.server import KEEPALIVE, Server
from tests.support.upstream import Upstream


def providers(url: str) -> list[dict[str, object]]:
    """One of each, all at the scripted upstream."""
    return [
        {"type": "anthropic", "base_url": url, "keys": [{"value": "sk-ant-central-0123456789"}]},
        {"type": "openai", "base_url": f"{url}/v1", "keys": [{"value": "sk-oai-central-0123456789"}]},
        {"type": "copilot", "base_url": url},
        {"type": "anthropic", "name": "second", "base_url": f"{url}/base/", "send_actor_headers": True},
        {"type": "openai", "name": "off", "enabled": False, "base_url": url},
    ]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AIBRIDGE_CONFIG", "ANTHROPIC_API_KEY", "OPENAI_API_KEY", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def shared_upstream() -> Iterator[Upstream]:
    upstream = Upstream()
    yield upstream
    upstream.close()


@pytest.fixture
def upstream(shared_upstream: Upstream) -> Upstream:
    shared_upstream.reset()
    return shared_upstream


@pytest.fixture(scope="session")
def shared_server(shared_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {
        "providers": providers(shared_upstream.url),
        "keepalive_interval": KEEPALIVE,
        "drain_delay": 0,
    }
    server = Server(tmp_path_factory.mktemp("server"), settings)
    yield server
    assert "Traceback" not in server.stop()


@pytest.fixture
def server(shared_server: Server, upstream: Upstream) -> Iterator[Server]:
    """The bridge under gunicorn with gevent, at the scripted upstream."""
    yield shared_server
    shared_server.disconnect()


MakeApp = Callable[..., Flask]


@pytest.fixture
def make_app(tmp_path: Path, upstream: Upstream) -> Iterator[MakeApp]:
    """Makes standalone applications in this process; their records are written at the end."""
    made: list[Flask] = []

    def make(**settings: object) -> Flask:
        tree = {
            "database_url": f"sqlite:///{tmp_path}/records.db",
            "providers": providers(upstream.url),
            **settings,
        }
        made.append(create_app(tree))
        return made[-1]

    yield make
    for app in made:
        app.extensions["aibridge"].close(app)
