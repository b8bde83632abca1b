"""Fixtures of the dialogues on tools: a format, and whether its answers are streamed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conftest import Start
from tests.support.mcp import ScriptedMcp
from tests.support.server import Server
from tests.support.tool_dialects import DIALECTS, ToolDialect
from tests.support.upstream import Upstream

KEYS = ("sk-first-0123456789", "sk-second-0123456789")
StartBridge = Callable[..., Server]


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
