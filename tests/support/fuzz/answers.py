"""Answers of an upstream as they are on the wire: framed well or badly, coded, cut."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass, field

import brotli
import zstandard
from hypothesis import strategies as st

from tests.support.fuzz.data import CUTS, Cuts, spoiled_bytes
from tests.support.fuzz.exchanges import Api, bodies, streams
from tests.support.upstream import LAST_CHUNK, chunk

CODERS = {
    "gzip": lambda data: gzip.compress(data, mtime=0), "deflate": zlib.compress, "br": brotli.compress,
    "zstd": zstandard.compress, "identity": bytes, "nonsense": bytes,
}  # fmt: skip
_STATUSES = st.sampled_from(
    [*[200] * 20, 201, 299, 302, 400, 401, 402, 403, 404, 408, 413, 422, 429, 500, 503, 529, 599]
)
_TYPES = st.sampled_from(
    ["application/json", "text/event-stream", "Text/Event-Stream;charset=utf-8", "text/html", "", ";;,\xff"]
)
_FIELDS = st.sampled_from([
    "Set-Cookie: a=b", "Connection: keep-alive, X-Lost", "X-Lost: 1", "Connection: close", "Retry-After: 0", "Retry-After: x", "Retry-After: Wed, 21 Oct 2099 07:28:00 GMT",
    "retry-after-ms: 1e9", "X-Odd: \xff\x80", "X-Empty:", "X-Long: " + "y" * 9000, "Content-Encoding: gzip", "Content-Encoding: br, br, br, br, br", "Content-Encoding: ,",
    "Trailer: X-After", "Server: x", "Date: never", "X-AIBridge-Interception-Id: mine", "X-Accel-Buffering: yes", "request-id: req_1", "Location: http://127.0.0.1:1/", "Upgrade: h2c", "Keep-Alive: timeout=x",
])  # fmt: skip
_BAD_FRAMINGS = st.sampled_from([
    "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: chunked\r\nContent-Length: 5", "Content-Length: 5\r\nContent-Length: 6", "Content-Length: x", "Content-Length: -1",
    "Content-Length: 99999999", "Content-Length: 1", "X: a\r\n folded", "No colon", "Content-Length : 5", "X: \0",
])  # fmt: skip
_BAD_STARTS = st.sampled_from([
    "HTTP/1.1 101 Switching", "HTTP/1.1 999 X", "HTTP/1.1 042 X", "HTTP/2 200 X", "HTTP/1.1 20 X", "ICY 200 OK", "", "HTTP/1.1  200 X", "HTTP/9.9 200",
])  # fmt: skip
_TRAILERS = st.sampled_from(
    [
        LAST_CHUNK,
        LAST_CHUNK,
        b"0;x=y\r\n\r\n",
        b"000\r\nX-After: 1\r\n\r\n",
        b"0\r\nbad trailer\r\n\r\n",
        b"0\r\n",
    ]
)


@dataclass(frozen=True)
class Answer:
    """`wire` is sent in pieces, then the connection is closed.

    `is_whole`: the framing is right, and `status` and `body` are what it says. Else they mean nothing.
    """

    wire: bytes
    cuts: Cuts
    status: int = field(repr=False)
    body: bytes = field(repr=False)
    is_whole: bool


@st.composite
def answers(draw: st.DrawFn, api: Api) -> Answer:
    is_stream = draw(st.booleans())
    body = draw(streams(api) if is_stream else bodies(api))
    kind = "text/event-stream" if is_stream else "application/json"
    lines = ["Content-Type: " + (kind if draw(st.integers(0, 4)) else draw(_TYPES))]
    if draw(st.integers(0, 4)) == 0:
        coding = draw(st.sampled_from(list(CODERS)))
        body, lines = CODERS[coding](body), [*lines, f"Content-Encoding: {coding}"]
    lines += draw(st.lists(_FIELDS, max_size=3))
    is_whole = draw(st.integers(0, 3)) > 0
    status = draw(_STATUSES)
    framed = _framed(draw, body) if is_whole else _badly_framed(draw, body)
    start = f"HTTP/1.1 {status} X" if is_whole or draw(st.booleans()) else draw(_BAD_STARTS)
    early = b"HTTP/1.1 103 Early\r\nLink: </x>\r\n\r\n" * draw(st.sampled_from([0, 0, 0, 1, 3]))
    head = "\r\n".join([start, *lines]).encode("latin-1") + b"\r\n"
    wire = early + head + framed
    if not is_whole and draw(st.booleans()):
        wire = draw(spoiled_bytes(wire))
    return Answer(wire, draw(CUTS), status, body, is_whole)


def _framed(draw: st.DrawFn, body: bytes) -> bytes:
    """The last header and the body, framed in one of the three ways."""
    way = draw(st.sampled_from(["length", "chunked", "close"]))
    if way == "length":
        return b"Content-Length: %d\r\n\r\n" % len(body) + body
    if way == "close":
        return b"\r\n" + body
    chunks = [_with_extension(draw, chunk(piece)) for piece in draw(CUTS)(body)]
    return b"Transfer-Encoding: Chunked\r\n\r\n" + b"".join(chunks) + LAST_CHUNK


def _with_extension(draw: st.DrawFn, coded: bytes) -> bytes:
    if draw(st.integers(0, 9)):
        return coded
    size, _, rest = coded.partition(b"\r\n")
    return (
        draw(st.sampled_from([b"0", b""]))
        + size
        + draw(st.sampled_from([b";a=b", b';a="b;c"', b";a"]))
        + b"\r\n"
        + rest
    )


def _badly_framed(draw: st.DrawFn, body: bytes) -> bytes:
    way = draw(st.sampled_from(["head", "chunks", "end", "cut"]))
    if way == "head":
        return draw(_BAD_FRAMINGS).encode("latin-1") + b"\r\n\r\n" + body
    if way == "chunks":
        coded = b"".join(map(chunk, draw(CUTS)(body)))
        return b"Transfer-Encoding: chunked\r\n\r\n" + draw(spoiled_bytes(coded)) + LAST_CHUNK
    if way == "end":
        surplus = draw(st.sampled_from([b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", b"junk"]))
        return b"Transfer-Encoding: chunked\r\n\r\n" + chunk(body or b"x") + draw(_TRAILERS) + surplus
    whole = _framed(draw, body)
    return whole[: draw(st.integers(0, len(whole)))]
