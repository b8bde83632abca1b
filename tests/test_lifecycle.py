"""The server's life: it drains, reloads and comes back without losing anything."""

from __future__ import annotations

import signal
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import providers
from tests.support.server import PATIENCE, Server
from tests.support.upstream import LAST_CHUNK, Upstream, answer, chunk, stream_head
from tests.test_relay import ASK, ASK_WHOLE, BLOCK, END, MESSAGES, START

Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path, upstream: Upstream) -> Iterator[Start]:
    """Starts servers of a test's own; they are ended with it."""
    started: list[Server] = []

    def make(*options: str, **settings: object) -> Server:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        tree = {"providers": providers(upstream.url), "drain_delay": 0, **settings}
        started.append(Server(folder, tree, *options))
        return started[-1]

    yield make
    for server in started:
        server.disconnect()
        server.process.kill()
        server.process.wait()


def until(holds: Callable[[], bool]) -> None:
    """Asks again and again, until it holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline


def status(server: Server, path: str) -> int:
    try:
        server.get(path)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0
    return 200


def test_a_running_stream_outlives_sigterm_and_idle_connections_do_not(
    start: Start, upstream: Upstream
) -> None:
    server = start()
    go = threading.Event()
    upstream.say(answer(200, b"{}"))
    idle = server.connect()
    idle.send("POST", MESSAGES, ASK_WHOLE)
    idle.body(idle.head()[1])
    unused = server.connect()
    upstream.say(stream_head(), chunk(START + BLOCK), go, chunk(END), LAST_CHUNK)
    client = server.connect()
    client.send("POST", MESSAGES, ASK)
    client.head()
    assert client.chunk() == START + BLOCK
    server.process.send_signal(signal.SIGTERM)
    assert idle.stream.read() == b""
    assert unused.stream.read() == b""
    go.set()
    assert client.chunks() == (END, True)
    assert server.process.wait(PATIENCE) == 0
    assert "Traceback" not in server.log.read_text()


def test_it_is_not_ready_while_it_drains(start: Start) -> None:
    server = start(drain_delay=2)
    assert status(server, "/readyz") == 200
    server.process.send_signal(signal.SIGHUP)
    until(lambda: status(server, "/readyz") == 503)
    until(lambda: status(server, "/readyz") == 200)
