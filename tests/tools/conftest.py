"""Fixtures of the dialogues on tools: a format, and whether its answers are streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from aibridge_flask import config
from aibridge_flask.tools.mcp import McpClient
from tests.conftest import Start
from tests.support.mcp import SECRET, ScriptedMcp
from tests.support.server import Server
from tests.support.tool_dialects import DIALECTS, ToolDialect
from tests.support.upstream import Upstream

KEYS = ("sk-first-0123456789", "sk-second-0123456789")
StartBridge = Callable[..., Server]
Make = Callable[..., McpClient]


@pytest.fixture(params=DIALECTS, ids=str)
def api(request: pytest.FixtureRequest) -> ToolDialect:
    dialect: ToolDialect = request.param
    return dialect


@pytest.fixture(params=[True, False], ids=["streamed", "blocking"])
def streaming(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def start_toolbridge(start: Start, docs: ScriptedMcp) -> StartBridge:
    """Starts bridges of a test's own that offer the tools of `docs`; they are ready."""

    def make(*options: str, **settings: object) -> Server:
        servers = [{"name": "docs", "url": docs.url}]
        return start(*options, **{"mcp_servers": servers, **settings}).wait_ready("/readyz")

    return make


@pytest.fixture
def toolbridge_of_two_keys(start_toolbridge: StartBridge, upstream: Upstream, api: ToolDialect) -> Server:
    """As `toolbridge`, of its own, with two keys: one can cool down."""
    keys = [{"value": key} for key in KEYS]
    provider = {"type": api.provider, "base_url": upstream.url + api.base_path, "keys": keys}
    return start_toolbridge(providers=[provider])


@pytest.fixture
def mcp(upstream: Upstream) -> ScriptedMcp:
    return ScriptedMcp(upstream)


@pytest.fixture
def changes() -> list[bool]:
    """An item for each time that the client reported changed tools."""
    return []


@pytest.fixture
def make(mcp: ScriptedMcp, changes: list[bool]) -> Iterator[Make]:
    clients: list[McpClient] = []

    def make(url: str = "", timeout: float = 20.0, **settings: object) -> McpClient:
        headers = {"Authorization": {"value": f"Bearer {SECRET}"}, "X-Team": {"value": "blue"}}
        server = {"name": "docs", "url": url or mcp.url, "headers": headers}
        tree = {"mcp_servers": [server], "mcp": {"tool_timeout": timeout}, **settings}
        loaded = config.load(tree)
        clients.append(McpClient(loaded.mcp_servers[0], loaded, lambda: changes.append(True)))
        return clients[-1]

    yield make
    for client in clients:
        client.close(20)
