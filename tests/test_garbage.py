"""Nothing that a failed request held stays in memory until the next collection of garbage."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Callable

import brotli
import pytest
import zstandard

from tests.support.dialogue import CHAT, MESSAGES
from tests.support.robustness import MIB, check_memory_returns, check_still_serves, resident_mib
from tests.support.server import Server
from tests.support.upstream import CLOSE, WAIT_FOR_CLOSE, Step, Upstream, chunk, http_response, stream_head

COUNT = "/anthropic/v1/messages/count_tokens"
WIDE = zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(window_log=27))
LARGE = json.dumps({"model": "m", "messages": [{"role": "user", "content": "word " * 20}] * 60_000}).encode()
STREAMED = b'{"stream":true,' + LARGE[1:]
SPOILED = gzip.compress(LARGE)[:-1000] + b"x" * 1000
REFUSED: dict[str, tuple[str, Callable[[], bytes]]] = {
    "a gzip bomb": ("gzip", lambda: gzip.compress(b" " * (200 * MIB))),
    "a zstd bomb": ("zstd", lambda: WIDE.compress(b" " * (200 * MIB))),
    "a brotli bomb": ("br", lambda: brotli.compress(b" " * (200 * MIB), quality=1)),
    "a spoilt body": ("gzip", lambda: SPOILED),
    "open brackets": ("", lambda: b"[" * (20 * MIB)),
    "no JSON": ("", lambda: LARGE[:-1]),
    "too much": ("", lambda: b" " * (33 * MIB)),
}
FAILED: dict[str, tuple[bytes, list[Step]]] = {
    "no answer": (LARGE, [CLOSE]),
    "a refusal": (LARGE, [http_response(400, b"{}")]),
    "a refused key": (LARGE, [http_response(401, b"{}")]),
    "a stream that breaks off": (STREAMED, [stream_head(), chunk(b"data: {}\n\n"), CLOSE]),
    "an answer that breaks off": (LARGE, [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", CLOSE]),
    "no HTTP": (LARGE, [b"junk\r\n\r\n", CLOSE]),
}


def check_growth(server: Server, fail: Callable[[], None]) -> None:
    """The first requests may leave something behind: what is loaded, and room for the next ones."""
    for _ in range(4):
        fail()
    before = resident_mib(server)
    for _ in range(6):
        fail()
    check_memory_returns(server, before, 40)


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_body_leaves_nothing_behind(server: Server, upstream: Upstream, name: str) -> None:
    coding, make = REFUSED[name]
    body = make()

    def fail() -> None:
        client = server.connect()
        client.send("POST", MESSAGES, body, **({"Content_Encoding": coding} if coding else {}))
        assert client.head()[0] in (400, 413)
        server.disconnect()

    check_growth(server, fail)
    check_still_serves(server, upstream)


@pytest.mark.parametrize("path", [MESSAGES, CHAT, COUNT])
@pytest.mark.parametrize("name", FAILED)
def test_a_failed_request_leaves_nothing_behind(
    server: Server, upstream: Upstream, path: str, name: str
) -> None:
    body, steps = FAILED[name]
    upstream.handler = lambda received: steps

    def fail() -> None:
        client = server.connect()
        client.send("POST", path, body)
        status, headers = client.head()
        assert status in (200, 400, 502)
        client.body(headers)
        server.disconnect()

    check_growth(server, fail)
    check_still_serves(server, upstream)


@pytest.mark.parametrize("body", [LARGE, STREAMED], ids=["blocking", "streamed"])
@pytest.mark.parametrize("path", [MESSAGES, CHAT, COUNT])
def test_a_client_that_leaves_leaves_nothing_behind(
    server: Server, upstream: Upstream, path: str, body: bytes
) -> None:
    upstream.handler = lambda received: [WAIT_FOR_CLOSE]

    def leave() -> None:
        upstream.peer_closed.clear()
        before = len(upstream.requests)
        client = server.connect()
        client.send("POST", path, body)
        upstream.wait_for_requests(before + 1)
        client.sock.shutdown(socket.SHUT_RDWR)
        server.disconnect()
        assert upstream.peer_closed.wait(10)

    check_growth(server, leave)
    check_still_serves(server, upstream)
