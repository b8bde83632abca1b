"""The bridge against an upstream that lies, disconnects, floods or does not speak HTTP."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import brotli
import pytest
import zstandard

from tests.conftest import MakeApp
from tests.support.dialogue import ASK, ASK_BLOCKING, ASK_CHAT, CHAT, END, MESSAGES, START
from tests.support.robustness import MIB, check_memory_returns, check_still_serves, fetch, resident_mib
from tests.support.server import PREFIX, Server, wait_until
from tests.support.upstream import (
    CLOSE,
    LAST_CHUNK,
    RESET,
    TIMEOUT_SECONDS,
    WAIT_FOR_CLOSE,
    Upstream,
    chunk,
    event_stream,
    head,
    http_response,
    stream_head,
)

RESPONSES = "/openai/v1/responses"
ASK_RESPONSES = b'{"model":"gpt-5","stream":true,"input":"hi"}'
MODELS = "/anthropic/v1/models"
EVENTS = START + END


# Before the answer

INTERIM = [
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 102 Processing\r\nX-Early: 1\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\nX-Early: 1\r\n\r\n",
    b"HTTP/1.1 199 \r\nX-Early: 1\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 E\r\nLink: </x>\r\n\r\n" * 20,
]


@pytest.mark.parametrize("interim", INTERIM)
@pytest.mark.parametrize("size", [1000, 1])
def test_interim_answers_are_skipped(server: Server, upstream: Upstream, interim: bytes, size: int) -> None:
    blocking, events = http_response(200, b'{"a":1}'), b"".join(event_stream(EVENTS))
    for final, body, expected in ((blocking, ASK_BLOCKING, b'{"a":1}'), (events, ASK, EVENTS)):
        data = interim + final
        upstream.enqueue(*(data[i : i + size] for i in range(0, len(data), size)))
        response = fetch(server, body)
        assert (response.status, response.body, response.is_complete) == (200, expected, True)
        assert "x-early" not in response.headers
    check_still_serves(server, upstream)


def test_endless_interim_answers_are_a_502(server: Server, upstream: Upstream) -> None:
    upstream.enqueue(INTERIM[0] * 10_000, CLOSE)
    assert fetch(server).status == 502
    check_still_serves(server, upstream)


# No answer, or invalid HTTP

NO_HTTP = [
    b"",
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"\0" * 1000,
    b"x" * (4 * MIB),
    b"<html><body>500 Internal Server Error</body></html>\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"ICY 200 OK\r\n\r\n{}",
    b"HTTP/3 200 OK\r\n\r\n{}",
    b"http/1.1 200 OK\r\n\r\n{}",
    b"HTTP/1.1  200 OK\r\n\r\n{}",
    b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
    b"HTTP/1.1 200 OK\rContent-Length: 2\r\r{}",
    b"HTTP/1.1 " + b"9" * 70_000,
    *(b"HTTP/1.1 %s OK\r\n\r\n{}" % status for status in (b"2000", b"20", b"000", b"099", b"abc", b"-200")),
]
BAD_FIELDS = [
    b"No colon", b"X : a", b": a", b"X\xe9: a", b"X(: a", b"X: a\0b", b"X: a\r\n folded", b"X: a\rb", b"X: a\nY: b",
    b"X: \x7f", b"X: \x1b[31m", b"Content-Length: -2", b"Content-Length: +2", b"Content-Length: 0x2",
    b"Content-Length: 2.0", b"Content-Length: ", b"Content-Length: 2, 2", b"Content-Length: 2\r\nContent-Length: 2",
    b"Content-Length: " + b"9" * 30, b"Transfer-Encoding: chunked\r\nContent-Length: 2",
    b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: identity", b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunked\x0b",
    b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding:", b"Transfer-Encoding: chunked;q=1",
    b"\r\n".join([b"X: y"] * 100_000), b"\r\n".join(b"X-%d: y" % n for n in range(100_000)),
]  # fmt: skip


@pytest.mark.parametrize(
    "data", NO_HTTP + [b"HTTP/1.1 200 OK\r\n" + field + b"\r\n\r\n{}" for field in BAD_FIELDS]
)
def test_invalid_http_is_a_502(server: Server, upstream: Upstream, data: bytes) -> None:
    for body, path in ((ASK_BLOCKING, MESSAGES), (ASK_CHAT, CHAT)):
        upstream.enqueue(data, CLOSE)
        response = fetch(server, body, path)
        assert (response.status, response.is_complete) == (502, True)
        assert json.loads(response.body)["error"]["message"] == "the AI provider could not be reached"
        record = server.record(response.id)
        assert (record["status_code"], record["error_type"]) == (502, "server_error")
    upstream.enqueue(data, CLOSE)
    assert fetch(server, path=MODELS, method="GET").status == 502
    check_still_serves(server, upstream)


@pytest.mark.parametrize("head_bytes", [*event_stream(EVENTS)[:1], head(200, "Content-Length: 2")])
def test_a_head_cut_at_any_byte_is_a_502(server: Server, upstream: Upstream, head_bytes: bytes) -> None:
    for cut in range(1, len(head_bytes)):
        upstream.enqueue(head_bytes[:cut], CLOSE if cut % 2 else RESET)
        assert fetch(server, ASK).status == 502
    check_still_serves(server, upstream)


@pytest.mark.parametrize(
    "line",
    ["X: caf\xe9\xff\x80", "X: a\tb", "X:", "X: " + "y" * 60_000, *(["X: y"] * 5)],
)
def test_odd_header_values_pass(server: Server, upstream: Upstream, line: str) -> None:
    upstream.enqueue(http_response(200, b"{}", line))
    response = fetch(server)
    assert (response.status, response.body) == (200, b"{}")
    assert response.headers["x"] == line.partition(":")[2].strip()
    check_still_serves(server, upstream)


@pytest.mark.parametrize("status", [201, 299, 304, 400, 404, 499, 529, 600, 999])
def test_any_status_passes(server: Server, upstream: Upstream, status: int) -> None:
    upstream.enqueue(http_response(status, b"" if status == 304 else b'{"a":1}'))
    response = fetch(server)
    assert (response.status, response.is_complete) == (status, True)
    assert response.body == (b"" if status == 304 else b'{"a":1}')
    assert server.record(response.id)["status_code"] == status
    check_still_serves(server, upstream)


# An answer that breaks off, or is framed wrongly


def test_a_chunked_answer_cut_at_any_byte_is_incomplete(server: Server, upstream: Upstream) -> None:
    """Cuts between chunks, inside them, in their sizes and in the size of the last chunk."""
    events = b"data: {}\n\n" * 3
    data = stream_head() + b"".join(chunk(events[n : n + 7]) for n in range(0, len(events), 7)) + LAST_CHUNK
    for cut in range(len(stream_head()), len(data) - len(b"\r\n")):
        upstream.enqueue(data[:cut], CLOSE)
        response = fetch(server, ASK_CHAT, CHAT)
        assert not response.is_complete
        passed, _, error_event = response.body.partition(b'data: {"error"')
        assert events.startswith(passed)
        assert not error_event or passed.endswith(b"\n\n") or not passed
    assert server.record(response.id)["error_type"] == "server_error"
    check_still_serves(server, upstream)


def test_an_answer_shorter_than_its_length_is_incomplete(server: Server, upstream: Upstream) -> None:
    body = b'{"id":"msg_1","usage":{"input_tokens":1}}'
    head_bytes = head(200, f"Content-Length: {len(body)}")
    for cut in range(1, len(body)):
        upstream.enqueue(head_bytes, body[:cut], CLOSE)
        response = fetch(server)
        assert (response.status, response.body, response.is_complete) == (200, body[:cut], False)
    assert server.record(response.id)["error_type"] == "server_error"
    check_still_serves(server, upstream)


BAD_CHUNKS = [
    b"zz\r\n", b"-5\r\nhello\r\n", b"F" * 17 + b"\r\n", b"5\nhello\r\n", b"5\r\nhello!", b"5\r\nhello\n", b" 5\r\nhello\r\n",
    b"0x5\r\nhello\r\n", b"\r\n5\r\nhello\r\n", b'5;"a\r\nb"\r\nhello\r\n', b"0", b"0\r", b"00\rx", b"05\r\n", b"10\r\n",
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD_CHUNKS)
def test_a_bad_chunk_is_a_cut(server: Server, upstream: Upstream, bad: bytes) -> None:
    go = threading.Event()
    upstream.enqueue(stream_head() + chunk(START), go, bad, CLOSE)
    client = server.connect()
    client.send("POST", MESSAGES, ASK)
    _, headers = client.head()
    assert client.chunk() == START
    go.set()
    rest, whole = client.chunks()
    assert not whole
    assert b"hello".startswith(rest[:5]) or rest.startswith(b"event: error\n")
    record = server.record(headers["x-aibridge-interception-id"])
    assert (record["error_type"], len(record["token_usages"])) == ("server_error", 1)
    upstream.enqueue(stream_head() + chunk(START) + bad, CLOSE)
    assert not fetch(server, ASK).body.endswith(LAST_CHUNK)
    check_still_serves(server, upstream)


@pytest.mark.parametrize(
    "last",
    [b"0;a=b\r\n\r\n", b"00000\r\n\r\n", b"0\r\nX-Trailer: 1\r\nSet-Cookie: a=b\r\n\r\n", b"0\r\n" + b"X: y\r\n" * 50_000 + b"\r\n"],
)  # fmt: skip
def test_trailers_and_chunk_extensions_are_dropped(server: Server, upstream: Upstream, last: bytes) -> None:
    upstream.enqueue(stream_head() + b"%x;a=b\r\n%s\r\n" % (len(EVENTS), EVENTS) + last)
    response = fetch(server, ASK)
    assert (response.body, response.is_complete) == (EVENTS, True)
    assert "x-trailer" not in response.headers
    assert server.record(response.id)["error_type"] == ""
    check_still_serves(server, upstream)


@pytest.mark.parametrize(
    ("endless", "is_whole"), [(b"0\r\nX: ", True), (b"0\r\nX: y\r\n", True), (b"5;a=", False)]
)
def test_an_endless_trailer_or_extension_is_not_read(
    server: Server, upstream: Upstream, endless: bytes, is_whole: bool
) -> None:
    """A parser would buffer it, and copy all of it for each piece."""

    def flood(sock: socket.socket) -> None:
        try:
            for _ in range(64):
                sock.sendall(b"X: yyyyyyyyyyy\r\n" * (MIB // 16) if endless.endswith(b"\n") else b"x" * MIB)
        except ConnectionError:
            upstream.peer_closed.set()

    upstream.enqueue(stream_head() + chunk(EVENTS) + endless, flood, CLOSE)
    response = fetch(server, ASK)
    assert (response.body.startswith(EVENTS), response.is_complete) == (True, is_whole)
    assert upstream.peer_closed.wait(TIMEOUT_SECONDS)
    assert server.record(response.id)["error_type"] == ("" if is_whole else "server_error")
    check_still_serves(server, upstream)


SPOILT_TRAILERS = [
    b"0\r\n", b"0\r\n\r", b"000;a=b\r\n", b"0\r\nX-Trailer", b"0\r\nX-Trailer: 1", b"0\r\nX-Trailer: 1\r\n",
    b"0\r\nX-Trailer: 1\r\n\r", b"0\r\nno trailer\r\n\r\n", b"0\r\nContent-Length: 5\r\n\r\n", b"0\r\n folded: 1\r\n\r\n",
    b"0\r\nX: \0\r\n\r\n", b"0\r\n\x80\xff", b"0\r\n: x\r\n\r\n", b"0\r\nHTTP/1.1 200 OK\r\n\r\n",
    b"0\r\nX: " + b"y" * 200_000 + b"\r\n\r\n", b"0\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
]  # fmt: skip


@pytest.mark.parametrize("spoilt", SPOILT_TRAILERS, ids=range(len(SPOILT_TRAILERS)))
@pytest.mark.parametrize("end", [CLOSE, RESET, WAIT_FOR_CLOSE], ids=["close", "reset", "open"])
@pytest.mark.parametrize("apart", [False, True])
def test_what_follows_the_last_chunk_never_spoils_a_whole_answer(
    server: Server, upstream: Upstream, spoilt: bytes, end: object, apart: bool
) -> None:
    data = stream_head() + chunk(EVENTS)
    client = server.connect()
    arrived = threading.Event()
    upstream.enqueue(*((data, arrived, spoilt) if apart else (data + spoilt,)), end)
    client.send("POST", MESSAGES, ASK)
    _, headers = client.head()
    assert client.chunk() == EVENTS
    arrived.set()
    assert client.chunks() == (b"", True)
    client.close()
    record = server.record(headers["x-aibridge-interception-id"])
    assert (record["error_type"], len(record["token_usages"])) == ("", 1)
    check_still_serves(server, upstream)
    assert upstream.connections == 2


@pytest.mark.parametrize("at", range(1, len(LAST_CHUNK)))
def test_a_last_chunk_in_two_pieces_keeps_the_connection(server: Server, upstream: Upstream, at: int) -> None:
    arrived = threading.Event()
    upstream.enqueue(stream_head() + chunk(EVENTS) + LAST_CHUNK[:at], arrived, LAST_CHUNK[at:])
    client = server.connect()
    client.send("POST", MESSAGES, ASK)
    client.head()
    assert client.chunk() == EVENTS
    arrived.set()
    assert client.chunks() == (b"", True)
    check_still_serves(server, upstream)
    assert upstream.connections == 1


def test_bytes_beyond_the_length_are_dropped(server: Server, upstream: Upstream) -> None:
    upstream.enqueue(head(200, "Content-Length: 7"), b'{"a":1}{"b":2}' + http_response(200, b'{"stolen":1}'))
    response = fetch(server)
    assert (response.body, response.is_complete) == (b'{"a":1}', True)
    check_still_serves(server, upstream)
    assert upstream.connections == 2


# Leftovers, and dead connections

SECOND = http_response(200, b'{"stolen":1}')


@pytest.mark.parametrize(
    ("first", "body", "method"),
    [
        (b"".join(event_stream(EVENTS)), ASK, "POST"),
        (http_response(200, b"{}"), ASK_BLOCKING, "POST"),
        (http_response(404, b"{}"), ASK_BLOCKING, "POST"),
        (head(204), ASK_BLOCKING, "POST"),
        (head(204, "Content-Length: 5"), ASK_BLOCKING, "POST"),
        (head(204, "Transfer-Encoding: chunked"), ASK_BLOCKING, "POST"),
        (head(304, "Content-Length: 5"), ASK_BLOCKING, "POST"),
        (head(200, "Content-Length: 5"), b"", "HEAD"),
    ],
)
@pytest.mark.parametrize("leftover", [SECOND, SECOND[:20], b"HTTP/1.1 200 OK\r\n\r\n", b"H", b"junk"])
@pytest.mark.parametrize("is_late", [False, True])
def test_leftovers_never_reach_the_next_answer(
    server: Server, upstream: Upstream, first: bytes, body: bytes, method: str, leftover: bytes, is_late: bool
) -> None:
    """Leftovers in one piece with the answer, or sent while the connection is idle."""
    go, ended = threading.Event(), threading.Event()
    steps = [first, go, leftover] if is_late else [first + leftover]
    upstream.enqueue(*steps, lambda sock: ended.set())
    path = MESSAGES if method == "POST" else MODELS
    response = fetch(server, body, path, method)
    assert response.is_complete
    go.set()
    assert ended.wait(TIMEOUT_SECONDS)
    check_still_serves(server, upstream)
    assert upstream.connections == 2


@pytest.mark.parametrize("end", [CLOSE, RESET])
def test_dead_idle_connections_are_replaced(server: Server, upstream: Upstream, end: object) -> None:
    for number in range(30):
        upstream.enqueue(http_response(200, b'{"n":%d}' % number), end)
        assert fetch(server).body == b'{"n":%d}' % number
    assert len(upstream.requests) == 30
    check_still_serves(server, upstream)


# Floods


def test_an_event_of_five_megabytes_passes(server: Server, upstream: Upstream) -> None:
    large = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%s"}}\n\n'
    events = START + large % (b"x" * (5 * MIB)) + END
    upstream.enqueue(*event_stream(events, 65_000))
    response = fetch(server, ASK)
    assert response.is_complete
    assert response.body == events
    assert server.record(response.id)["token_usages"][0]["output_tokens"] == 7
    check_still_serves(server, upstream)


@pytest.mark.parametrize(("path", "body"), [(MESSAGES, ASK), (CHAT, ASK_CHAT), (RESPONSES, ASK_RESPONSES)])
@pytest.mark.parametrize("event", [b": x\n\n", b"data: {}\n\n", b"data\r\r"])
def test_a_hundred_thousand_tiny_events_pass(
    server: Server, upstream: Upstream, path: str, body: bytes, event: bytes
) -> None:
    events = event * 100_000
    upstream.enqueue(
        stream_head(), b"".join(chunk(events[n : n + 9000]) for n in range(0, len(events), 9000)), LAST_CHUNK
    )
    response = fetch(server, body, path)
    assert response.is_complete
    assert response.body == events
    check_still_serves(server, upstream)


def test_an_endless_event_leaves_memory_flat(server: Server, upstream: Upstream) -> None:
    """100 MB without a line end."""
    check_still_serves(server, upstream)
    before = resident_mib(server)
    upstream.handler = lambda received: [stream_head(), *[chunk(b"x" * MIB)] * 100, LAST_CHUNK]
    response = fetch(server, ASK)
    assert (len(response.body), response.is_complete) == (100 * MIB, True)
    check_memory_returns(server, before, 120)
    check_still_serves(server, upstream)


# Content encodings, compression bombs


def make_bomb(wbits: int) -> bytes:
    """2 GiB of zeros, compressed: a block that decodes to 1 MiB, repeated."""
    compressor = zlib.compressobj(9, wbits=wbits)
    first = compressor.compress(b"\0" * MIB) + compressor.flush(zlib.Z_FULL_FLUSH)
    return (
        first
        + 2047 * (compressor.compress(b"\0" * MIB) + compressor.flush(zlib.Z_FULL_FLUSH))
        + compressor.flush()
    )


BOMBS: dict[str, Callable[[], bytes]] = {
    "gzip": lambda: make_bomb(31),
    "deflate": lambda: make_bomb(15),
    "zstd": lambda: zstandard.compress(b"\0" * (500 * MIB)),
    "br": lambda: brotli.compress(b"\0" * (500 * MIB), quality=1),
    "gzip, gzip": lambda: gzip.compress(make_bomb(31)),
}


@pytest.mark.parametrize("coding", BOMBS)
def test_a_compression_bomb_passes_and_memory_stays_bounded(
    server: Server, upstream: Upstream, coding: str
) -> None:
    bomb = BOMBS[coding]()
    check_still_serves(server, upstream)
    before = resident_mib(server)
    for steps, body, path in (
        ([http_response(200, bomb, f"Content-Encoding: {coding}")], ASK_BLOCKING, MESSAGES),
        (event_stream(bomb, 60_000, f"Content-Encoding: {coding}"), ASK, MESSAGES),
        ([http_response(500, bomb, f"Content-Encoding: {coding}")], ASK_BLOCKING, MESSAGES),
    ):
        upstream.enqueue(*steps)
        response = fetch(server, body, path)
        assert response.is_complete
        assert response.body == bomb
        assert response.headers["content-encoding"] == coding
    check_memory_returns(server, before, 150)
    check_still_serves(server, upstream)


def test_a_compression_bomb_that_must_be_decoded_is_a_cut(server: Server, upstream: Upstream) -> None:
    """The usage chunk is withheld from the client, so decoded bytes are sent."""
    upstream.enqueue(*event_stream(BOMBS["gzip"](), 60_000, "Content-Encoding: gzip"))
    before = resident_mib(server)
    response = fetch(server, b'{"model":"gpt-5","stream":true,"messages":[]}', CHAT)
    assert (response.status, response.is_complete) == (200, False)
    assert len(response.body) <= 33 * MIB
    check_memory_returns(server, before, 150)
    check_still_serves(server, upstream)


@pytest.mark.parametrize(
    "coding",
    ["gzip", "br", "zstd", "deflate", "compress", "gzip" + ", gzip" * 2000, "nonsense, gzip", "identity", ""],
)
@pytest.mark.parametrize("body", [ASK_BLOCKING, ASK])
def test_a_wrong_content_encoding_passes(
    server: Server, upstream: Upstream, coding: str, body: bytes
) -> None:
    data = EVENTS if body is ASK else b'{"id":"msg_1"}'
    field = f"Content-Encoding: {coding}"
    upstream.enqueue(*(event_stream(data, 0, field) if body is ASK else [http_response(200, data, field)]))
    response = fetch(server, body)
    assert (response.body, response.is_complete) == (data, True)
    assert server.record(response.id)["ended_at"]
    check_still_serves(server, upstream)


def test_an_encoded_stream_that_is_cut_is_recorded_up_to_the_cut(server: Server, upstream: Upstream) -> None:
    compressor = zlib.compressobj(wbits=31)
    first = compressor.compress(START) + compressor.flush(zlib.Z_SYNC_FLUSH)
    rest = compressor.compress(END) + compressor.flush()
    upstream.enqueue(stream_head("Content-Encoding: gzip"), chunk(first), chunk(rest[:20]), CLOSE)
    response = fetch(server, ASK)
    assert (response.body[: len(first)], response.is_complete) == (first, False)
    record = server.record(response.id)
    assert (record["error_type"], record["token_usages"][0]["input_tokens"]) == ("server_error", 3)
    check_still_serves(server, upstream)


# Redirects and cookies


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
@pytest.mark.parametrize(("path", "method"), [(MESSAGES, "POST"), (MODELS, "GET")])
def test_redirects_and_cookies_are_not_followed(
    server: Server, upstream: Upstream, status: int, path: str, method: str
) -> None:
    location = f"{upstream.url}/stolen"
    upstream.enqueue(
        http_response(status, b"", f"Location: {location}", "Set-Cookie: a=b; Path=/", "SET-COOKIE2: c=d")
    )
    response = fetch(server, path=path, method=method)
    assert (response.status, response.headers["location"]) == (status, location)
    assert not {"set-cookie", "set-cookie2"} & set(response.headers)
    check_still_serves(server, upstream)
    assert len(upstream.requests) == 2
    assert upstream.requests[1].header("cookie") is None


# Answers before the request is read


def test_an_answer_before_the_body_is_read_passes(server: Server, upstream: Upstream) -> None:
    refusal = b'{"error":{"type":"request_too_large"}}'

    def refuse(sock: socket.socket) -> None:
        stream = sock.makefile("rb")
        while stream.readline() not in (b"\r\n", b""):
            pass
        sock.sendall(http_response(413, refusal, "Connection: close"))
        sock.shutdown(socket.SHUT_WR)
        while stream.read(MIB):
            pass

    upstream.takeover = refuse
    large = ASK_BLOCKING[:-1] + b',"pad":"' + b"x" * (20 * MIB) + b'"}'
    response = fetch(server, large)
    assert (response.status, response.body) == (413, refusal)
    upstream.takeover = None
    check_still_serves(server, upstream)


# Unexpected content


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("text/html", b"<html><body>Log in</body></html>"),
        ("application/json", b'{"id":"msg_1","content":[],"usage":{"input_tokens":3,"output_tokens":7}}'),
        ("text/event-stream", EVENTS),
        ("TEXT/Event-Stream; charset=utf-8", EVENTS),
        ("text/event-stream-not", EVENTS),
        ("image/png", b"\x89PNG\r\n\x1a\n\0"),
        ("", EVENTS),
        (";;;=,\xff", b"\xff\xfe"),
        ("application/json; charset=utf-16", '{"id":"msg_1"}'.encode("utf-16")),
    ],
)
@pytest.mark.parametrize("body", [ASK, ASK_BLOCKING])
def test_any_content_type_passes(
    server: Server, upstream: Upstream, kind: str, data: bytes, body: bytes
) -> None:
    upstream.enqueue(head(200, f"Content-Length: {len(data)}", kind=kind) + data)
    response = fetch(server, body)
    assert (response.status, response.body, response.is_complete) == (200, data, True)
    assert response.headers["content-type"] == kind
    assert server.record(response.id)["ended_at"]
    check_still_serves(server, upstream)


def test_a_success_without_a_content_type_passes(server: Server, upstream: Upstream) -> None:
    upstream.enqueue(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(EVENTS) + EVENTS)
    response = fetch(server, ASK)
    assert (response.body, response.is_complete) == (EVENTS, True)
    assert server.record(response.id)["token_usages"][0]["output_tokens"] == 7


VARIANTS: dict[str, Callable[[bytes], bytes]] = {
    "bom": lambda events: b"\xef\xbb\xbf" + events,
    "crlf": lambda events: events.replace(b"\n", b"\r\n"),
    "cr": lambda events: events.replace(b"\n", b"\r"),
    "mixed": lambda events: events.replace(b"}\n\n", b"}\r\n\n"),
    "comments": lambda events: b":\n\n: x\n" + events.replace(b"\n\n", b"\n: {}\n\n:\n\n"),
    "no blank": lambda events: events.replace(b"data: ", b"data:").replace(b"event: ", b"event:"),
    "data in lines": lambda events: events.replace(b',"', b',\ndata: "'),
    "other fields": lambda events: events.replace(b"data: ", b"id: 5\nretry: 10\nnonsense\ndata: "),
    "no names": lambda events: b"".join(line + b"\n" for line in events.split(b"\n") if not line.startswith(b"event"))[:-1],
    "many blank lines": lambda events: events.replace(b"\n\n", b"\n\n\n\n\n"),
    "no last blank line": lambda events: events[:-1],
    "unknown events between": lambda events: events.replace(b"\n\n", b'\n\nevent: new\ndata: [1,{"type":"message_start"}]\n\n'),
    "no json between": lambda events: events.replace(b"\n\n", b"\n\ndata: {\n\ndata: \xff\xfe\n\ndata\n\n"),
}  # fmt: skip
CHAT_EVENTS = (
    b'data: {"id":"c1","model":"gpt-5","choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
    b'data: {"id":"c1","model":"gpt-5","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":7}}\n\n'
    b"data: [DONE]\n\n"
)
RESPONSES_EVENTS = (
    b'event: response.created\ndata: {"type":"response.created","response":{"id":"r1","model":"gpt-5"}}\n\n'
    b'event: response.completed\ndata: {"type":"response.completed","response":{"id":"r1","model":"gpt-5","status":"completed","usage":{"input_tokens":3,"output_tokens":7}}}\n\n'
)
APIS = [(MESSAGES, ASK, EVENTS), (CHAT, ASK_CHAT, CHAT_EVENTS), (RESPONSES, ASK_RESPONSES, RESPONSES_EVENTS)]


@pytest.mark.parametrize(("path", "body", "events"), APIS)
@pytest.mark.parametrize("name", VARIANTS)
def test_unusual_event_syntax_passes_and_is_read(
    server: Server, upstream: Upstream, path: str, body: bytes, events: bytes, name: str
) -> None:
    variant = VARIANTS[name](events)
    for size in (0, 1, 6):
        upstream.enqueue(*event_stream(variant, size))
        response = fetch(server, body, path)
        assert (response.body, response.is_complete) == (variant, True)
        record = server.record(response.id)
        (usage,) = record["token_usages"]
        assert (usage["input_tokens"], usage["output_tokens"]) == (3, 7)
        assert (record["error_type"], record["wire_exact"]) == ("", True)
    check_still_serves(server, upstream)


# Wrong types

ODD: list[Any] = [None, -1, 10**30, "\ud800\0", [None]]
SAMPLES: dict[str, list[Any]] = {
    MESSAGES: [
        {"type": "message_start", "message": {"id": "m", "model": "x", "content": [], "usage": {"input_tokens": 3, "cache_creation": {"a": 1}, "server_tool_use": {"b": 2}}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "t", "name": "n", "input": {"a": 1}}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "thinking", "thinking": "a"}},
        {"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "u", "name": "n", "input": {"a": 1}}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}},
        {"type": "error", "error": {"type": "overloaded_error", "message": "m"}},
    ],
    CHAT: [
        {"id": "c", "model": "x", "choices": [{"index": 0, "delta": {"reasoning_content": "r", "tool_calls": [{"index": 0, "id": "t", "function": {"name": "n", "arguments": "{}"}}]}}]},
        {"id": "c", "choices": [{"index": 0, "delta": {"function_call": {"name": "n", "arguments": "{}"}, "tool_calls": [{"index": 1, "id": "u", "custom": {"name": "n", "input": "x"}}]}}]},
        {"id": "c", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 1}, "completion_tokens_details": {"reasoning_tokens": 1}}},
        {"error": {"type": "server_error", "code": "c", "message": "m"}},
    ],
    RESPONSES: [
        {"type": "response.created", "response": {"id": "r", "model": "x"}},
        {"type": "response.output_item.added", "item": {"id": "i", "type": "web_search_call", "action": {"a": 1}}},
        {"type": "response.output_item.added", "item": {"id": "j", "type": "function_call", "call_id": "t", "name": "n", "arguments": "{}"}},
        {"type": "response.output_item.done", "item": {"id": "j", "type": "function_call", "call_id": "t", "name": "n", "arguments": "{}"}},
        {"type": "response.output_item.done", "item": {"id": "k", "type": "reasoning", "summary": [{"type": "summary_text", "text": "s"}]}},
        {"type": "error", "error": {"code": "c", "message": "m"}},
        {"type": "response.completed", "response": {"id": "r", "status": "completed", "error": {"code": "c"}, "usage": {"input_tokens": 3, "input_tokens_details": {"cached_tokens": 1}, "output_tokens": 7}}},
    ],
}  # fmt: skip


def replace_each_node(tree: Any, odd: Any) -> Iterator[Any]:
    """Yields the tree with `odd` in place of one node, for each node in turn."""
    yield odd
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, inner in pairs:
        for new in replace_each_node(inner, odd):
            copy = tree.copy()
            copy[key] = new
            yield copy


@pytest.mark.parametrize("odd", ODD, ids=repr)
@pytest.mark.parametrize(("path", "body"), [(MESSAGES, ASK), (CHAT, ASK_CHAT), (RESPONSES, ASK_RESPONSES)])
def test_wrong_json_types_pass_and_the_record_ends(
    server: Server, upstream: Upstream, path: str, body: bytes, odd: Any
) -> None:
    """Replaces each member of each event in turn; the others stay valid."""
    client = server.connect()
    ids = []
    for events in replace_each_node(SAMPLES[path], odd):
        stream = b"".join(
            b"data: %s\n\n" % json.dumps(event).encode()
            for event in (events if isinstance(events, list) else [events])
        )
        upstream.enqueue(*event_stream(stream))
        client.send("POST", path, body)
        status, headers = client.head()
        assert (status, client.body(headers)) == (200, (stream, True))
        ids.append(headers["x-aibridge-interception-id"])
    server.record(ids[-1])
    records = {record["id"]: record for record in server.get("/interceptions?limit=1000")["results"]}
    assert all(records[id]["ended_at"] for id in ids)
    for id in ids:
        for usage in records[id]["token_usages"]:
            counts = [value for key, value in usage.items() if key.endswith("_tokens")]
            assert all(type(count) is int and 0 <= count < 1 << 53 for count in counts)
    check_still_serves(server, upstream)


def test_absurd_token_counts_are_recorded_within_bounds(
    make_app: MakeApp, upstream: Upstream, tmp_path: Path
) -> None:
    """They do not spoil another request's record."""
    counts = {"input_tokens": 10**30, "output_tokens": 2**63, "\ud800": 5, "\0": 6, "x" * 100_000: 7}
    extra_counts = {f"kind_{number}": 1 for number in range(10_000)}
    client = make_app().test_client()
    with contextlib.closing(sqlite3.connect(tmp_path / "records.db", isolation_level=None)) as lock:
        lock.execute("BEGIN IMMEDIATE")
        for usage in ({**counts, **extra_counts}, {"input_tokens": 3}):
            body = json.dumps({"id": "m", "usage": usage}).encode()
            upstream.enqueue(http_response(200, body))
            assert client.post(PREFIX + MESSAGES, data=ASK_BLOCKING).get_data() == body
        lock.execute("ROLLBACK")

    def results() -> list[Any]:
        return client.get(f"{PREFIX}/interceptions").get_json()["results"]

    wait_until(
        lambda: (
            len(results()) == 2 and all(record["ended_at"] and record["token_usages"] for record in results())
        )
    )
    plain, odd = [record["token_usages"][0] for record in results()]
    assert plain["input_tokens"] == 3
    assert odd["input_tokens"] == odd["output_tokens"] == (1 << 53) - 1
    assert 0 < len(odd["metadata"]) <= 100
    assert all(name.isprintable() and len(name) <= 100 for name in odd["metadata"])
