"""Connections to upstreams and MCP servers are probed while they are silent."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from pathlib import Path

import pytest
import trustme

from aibridge_flask import config
from aibridge_flask.tools.mcp import McpClient
from tests.conftest import MakeApp
from tests.support.mcp import ScriptedMcp, call
from tests.support.server import PREFIX
from tests.support.upstream import Upstream, http_response

LINUX = pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="not all of it can be read here")
OPTIONS = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}


def connections_to(port: int) -> list[dict[str, int]]:
    """The options of this process's connections to a port."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(entry.name))) as sock:
            if sock.family == socket.AF_INET and sock.getpeername()[1] == port:
                options = {key: sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, key)) for key in OPTIONS}
                found.append({**options, "on": sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)})
    return found


@LINUX
@pytest.mark.parametrize("tls", [False, True])
def test_connections_to_an_upstream(make_app: MakeApp, tmp_path: Path, tls: bool) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with contextlib.closing(Upstream(context if tls else None)) as upstream:
        upstream.enqueue(http_response(200, b"{}"))
        provider = {"type": "anthropic", "base_url": upstream.url, "keys": [{"value": "sk-0123456789"}]}
        app = make_app(providers=[{**provider, "ca_file": str(tmp_path / "ca.pem")}])
        ask = b'{"model":"m","messages":[]}'
        answer = app.test_client().post(f"{PREFIX}/anthropic/v1/messages", data=ask, buffered=True)
        assert answer.status_code == 200
        assert connections_to(upstream.port) == [{**OPTIONS, "on": 1}]


@LINUX
def test_connections_to_an_mcp_server(upstream: Upstream) -> None:
    loaded = config.load({"mcp_servers": [{"name": "docs", "url": ScriptedMcp(upstream).url}]})
    client = McpClient(loaded.mcp_servers[0], loaded, lambda: None)
    call(client)
    assert connections_to(upstream.port) == [{**OPTIONS, "on": 1}]
    client.close(20)
