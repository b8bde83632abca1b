"""The peer of a Unix socket has no address."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.support.server import PREFIX, Server, free_port

ASK = f"GET {PREFIX}/interceptions HTTP/1.0\r\nHost: localhost\r\nX-Remote-User: ann\r\n\r\n".encode()


def status(address: tuple[str, int] | str) -> int:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as client:
        client.settimeout(20)
        client.connect(address)
        client.sendall(ASK)
        return int(client.makefile("rb").readline().split()[1])


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        ({"mode": "local"}, (403, 200)),
        ({"mode": "header"}, (403, 200)),
        ({"mode": "header", "trusted_proxies": ["unix:"]}, (200, 403)),
    ],
)
def test_a_unix_sockets_peer_is_trusted_only_by_its_word(
    tmp_path: Path, auth: dict[str, object], expected: tuple[int, int]
) -> None:
    port, path = free_port(), f"{tmp_path}/s"
    settings = {"providers": [], "auth": auth, "drain_delay": 0}
    server = Server(tmp_path, settings, f"--bind=127.0.0.1:{port}", f"--bind=unix:{path}", is_forked=True)
    server.port, server.url = port, f"http://127.0.0.1:{port}{PREFIX}"
    try:
        server.wait_ready()
        assert (status(path), status(("127.0.0.1", port))) == expected
    finally:
        server.process.kill()
        server.process.wait()
