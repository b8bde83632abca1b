"""The base URLs that the server logs at its start."""

from __future__ import annotations

import re
import socket
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.server import PREFIX, Server, free_port

StartBound = Callable[..., str]


@pytest.fixture
def start_bound(tmp_path: Path) -> Iterator[StartBound]:
    """Starts a server that listens at `binds` and at a port that answers; returns the lines with URLs."""
    started: list[Server] = []

    def start(*binds: str, script: str = "") -> str:
        port = free_port()
        options = [f"--bind={bind}" for bind in (f"127.0.0.1:{port}", *binds)]
        server = Server(
            tmp_path,
            {"providers": [{"type": "anthropic"}]},
            *options,
            environ={"SCRIPT_NAME": script},
            is_forked=True,
        )
        started.append(server)
        server.port, server.url = port, f"http://127.0.0.1:{port}{script}{PREFIX}"
        log = server.wait_ready().log.read_text()
        lines = "".join(re.findall(r"ANTHROPIC_BASE_URL=.*\n", log))
        index = urllib.request.urlopen(f"http://127.0.0.1:{port}{script}/").read().decode()
        assert f"ANTHROPIC_BASE_URL={server.url}/anthropic\n" in lines
        assert f"ANTHROPIC_BASE_URL={server.url}/anthropic\n" in index
        return lines

    yield start
    for server in started:
        server.process.kill()
        server.process.wait()


def test_the_command_lines_address_counts(start_bound: StartBound) -> None:
    port = free_port()
    assert f"=http://127.0.0.1:{port}{PREFIX}/anthropic\n" in start_bound(f"localhost:{port}")


def test_a_wildcard_is_no_address_for_clients(start_bound: StartBound) -> None:
    port = free_port()
    lines = start_bound(f"0.0.0.0:{port}")
    assert f"=http://127.0.0.1:{port}{PREFIX}/anthropic\n" in lines
    assert "0.0.0.0" not in lines


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
@pytest.mark.parametrize("bind", ["[::1]", "[::]"])
def test_an_ipv6_address_stands_in_brackets(start_bound: StartBound, bind: str) -> None:
    port = free_port()
    assert f"=http://[::1]:{port}{PREFIX}/anthropic\n" in start_bound(f"{bind}:{port}")


def test_a_unix_socket_has_no_address_of_its_own(start_bound: StartBound, tmp_path: Path) -> None:
    lines = start_bound(f"unix:{tmp_path}/s")
    assert f"=http://<the proxy in front>{PREFIX}/anthropic\n" in lines
    assert "unix" not in lines


def test_the_script_name_is_part_of_the_url(start_bound: StartBound) -> None:
    port = free_port()
    lines = start_bound(f"127.0.0.1:{port}", script="/below")
    assert f"=http://127.0.0.1:{port}/below{PREFIX}/anthropic\n" in lines
