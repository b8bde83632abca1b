"""Requests of a client as they are on the wire: targets, headers, bodies and framings, right or wrong."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from urllib.parse import quote

import zstandard
from hypothesis import strategies as st

from tests.support.fuzz.answers import CODERS
from tests.support.fuzz.data import CUTS, ODD_BYTES, Cuts, spoiled_bytes
from tests.support.fuzz.exchanges import CHAT, MESSAGES, RESPONSES, Api, requests
from tests.support.server import PREFIX
from tests.support.upstream import chunk

TOKEN, BASIC, PERCENT = (
    b"{TOKEN}",
    b"{BASIC}",
    b"{PERCENT}",
)  # stand for the gateway token, which is not known yet
_WITH_TOOLS = [
    ("/tools-anthropic/v1/messages", MESSAGES), ("/tools-openai/v1/chat/completions", CHAT), ("/tools-openai/v1/responses", RESPONSES),
]  # fmt: skip
ROUTES: list[tuple[str, Api]] = [
    ("/anthropic/v1/messages", MESSAGES), ("/openai/v1/chat/completions", CHAT), ("/openai/v1/responses", RESPONSES), ("/openai/v1/responses/compact", RESPONSES),
    *_WITH_TOOLS, *_WITH_TOOLS, ("/copilot/chat/completions", CHAT), ("/copilot/v1/messages", MESSAGES),
]  # fmt: skip
OTHER_ROUTES = [
    "/anthropic/v1/models", "/anthropic/v1/messages/count_tokens", "/openai/v1/models/a%2Fb", "/openai/v1/responses/resp_1", "/openai/v1/responses/input_tokens", "/openai/v1/conversations",
    "/openai/v1/conversations/conv_1/items", "/copilot/mcp/x", "/anthropic/v1/files", "/anthropic", "/nobody/v1/messages", "/interceptions", "/healthz", "/metrics", "", "/../..",
]  # fmt: skip
_TARGET_PARTS = st.sampled_from([
    "/..", "%2e%2e", "//", ";x", "%00", "%", "\\", "#", "?", "?a=b&stream=true", "?x=%ff", "/%c0%ae", "é", "\xff", " ", "/" + "a" * 9000, "@evil", ":80", "%2F", f"?key={TOKEN.decode()}", f"?key={PERCENT.decode()}", f"/{TOKEN.decode()}",
])  # fmt: skip
_NAMES = st.one_of(
    st.sampled_from([
        "Authorization", "X-Api-Key", "X-AIBridge-Token", "Cookie", "Proxy-Authorization", "X-Forwarded-For", "Forwarded", "Via", "X-Remote-User", "X-AI-Bridge-Actor-ID", "Connection",
        "TE", "Upgrade", "Expect", "Accept", "Accept-Encoding", "Content-Type", "User-Agent", "X-Claude-Code-Session-Id", "Anthropic-Beta", "Traceparent", "Tracestate", "Origin", "Sec-Fetch-Site",
        "Host", "Range", "If-None-Match", "X_Api_Key", "Originator", "Session_id", "X-Stainless-Retry-Count", "Openai-Organization",
    ]),
    st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,20}", fullmatch=True),
)  # fmt: skip
_CONTROLS = bytes({*range(32), 127} - {9})
_VALUES = st.one_of(
    st.sampled_from([
        TOKEN, b"Bearer " + TOKEN, b"bEARER  " + TOKEN, b"Basic " + BASIC, b"BaSiC " + BASIC, b'"' + TOKEN + b'"', b"a, Bearer " + TOKEN + b"; b", b"Bearer sk-own-0123456789abcdef", b"Bearer aib_" + b"x" * 43,
        b"close, X-Api-Key, Host, Content-Length", b"keep-alive", b"upgrade", b"websocket", b"100-continue", b"*/*", b"", b"  ", b"gzip;q=0", b"127.0.0.1", b"null", b"cross-site",
        b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", b"claude-cli/1.0", b"codex_cli_rs/0.1", b"y" * 30_000, b"\xff\xfe\x80", "é\u202e".encode(), b"%0d%0aX-Y: z", b"{}", b"\t",
    ]),
    st.binary(max_size=20).map(lambda value: value.translate(None, _CONTROLS)),
)  # fmt: skip
_TOKEN_LINES = st.sampled_from([
    *[b"X-AIBridge-Token: " + TOKEN] * 6, b"Authorization: Bearer " + TOKEN, b"X-Api-Key: " + TOKEN, b"X-Coder-AI-Governance-Token: " + TOKEN, b"X-AIBridge-Token: aib_" + b"x" * 43, b"X-None: 1",
])  # fmt: skip
_LARGE = [
    b'{"model":"m","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"model":"' + b"m" * 300_000 + b'","stream":true,"messages":[]}',
    b'{"model":"m",' + b'"a":1,' * 50_000 + b'"messages":[]}',
]  # fmt: skip
_CODED = [
    (b"gzip", gzip.compress(b" " * 50_000_000, mtime=0)),
    (b"zstd", zstandard.compress(b" " * 500_000_000)),
    (b"gzip", gzip.compress(b"", mtime=0) * 20_000),
]
_FRAMINGS = st.sampled_from([
    b"Content-Length: 1", b"Content-Length: 99999", b"Content-Length: -1", b"Content-Length: 5, 5", b"Content-Length: 9999999999999", b"Content-Length: x", b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked\r\nContent-Length: 9", b"Content-Length: 9\r\nContent-Length: 10", b"X: y", b" folded", b"No colon", b"X : y", b"X: \0", b"X: a\rb", b"X: a\nContent-Length: 3",
])  # fmt: skip


@dataclass(frozen=True)
class ClientRequest:
    """`wire` is sent in pieces. If the request is not whole, the client then closes its side.

    `is_whole`: it is framed as it should be. `body` is what its framing says.
    """

    method: str
    wire: bytes
    cuts: Cuts
    body: bytes = field(repr=False)
    is_whole: bool


@st.composite
def client_requests(draw: st.DrawFn, path: str, api: Api, method: str = "POST") -> ClientRequest:
    """Half of them have nothing odd but their body."""
    is_odd = draw(st.booleans())
    lines = [b"Host: 127.0.0.1", b"Connection: close", *draw(_head_lines(path, is_odd))]
    coding, body = draw(_bodies(api)) if method != "GET" else (b"", b"")
    lines += [b"Content-Encoding: " + coding] if coding else []
    is_whole = not is_odd or draw(st.booleans())
    framed = _framed(draw, body) if is_whole else _badly_framed(draw, body)
    target = PREFIX + path + (draw(_TARGET_PARTS) if is_odd and draw(st.integers(0, 3)) == 0 else "")
    start = f"{method} {target} HTTP/1.1".encode("latin-1") if is_whole else _start(draw, method, target)
    wire = b"\r\n".join([start, *lines]) + b"\r\n" + framed
    if not is_whole and draw(st.booleans()):
        wire = draw(spoiled_bytes(wire))
    is_whole = is_whole and len(target) < 8000 and " " not in target
    return ClientRequest(method, wire, draw(CUTS), body, is_whole)


@st.composite
def _head_lines(draw: st.DrawFn, path: str, is_odd: bool) -> list[bytes]:
    own = [b"Authorization: Bearer sk-own-0123456789abcdef"] if path.startswith("/copilot") else []
    if not is_odd:
        return [b"X-AIBridge-Token: " + TOKEN, *own]
    lines = [draw(_TOKEN_LINES), *own]
    fields = draw(st.lists(st.tuples(_NAMES, _VALUES), max_size=4))
    return lines + [b"%s: %s" % (name.encode(), value) for name, value in fields]


@st.composite
def _bodies(draw: st.DrawFn, api: Api) -> tuple[bytes, bytes]:
    """A body and its content coding."""
    kind = draw(st.integers(0, 19))
    if kind == 0:
        return draw(st.sampled_from(_CODED))
    if kind == 1:
        return b"", draw(st.sampled_from(_LARGE))
    body = draw(requests(api))
    if kind > 4:
        return b"", body
    coding = draw(st.sampled_from(list(CODERS)))
    coded = CODERS[coding](body)
    return coding.encode(), draw(spoiled_bytes(coded)) if kind == 2 else coded


def _start(draw: st.DrawFn, method: str, target: str) -> bytes:
    line = draw(
        st.sampled_from(
            [
                "{} {} HTTP/1.1",
                "{} {} HTTP/1.0",
                "{} {}",
                "{}  {} HTTP/1.1",
                "{} http://evil{} HTTP/1.1",
                "{} {} HTTP/9.9",
                "X{} {} HTTP/1.1",
                " {} {} HTTP/1.1",
            ]
        )
    )
    return line.format(method, target).encode("latin-1")


def _framed(draw: st.DrawFn, body: bytes) -> bytes:
    """The last header and the body."""
    if draw(st.integers(0, 2)) or not body:
        return b"Content-Length: %d\r\n\r\n" % len(body) + body
    last = draw(st.sampled_from([b"0\r\n\r\n", b"0;x=y\r\n\r\n", b"000\r\nX-Api-Key: stolen\r\n\r\n"]))
    pieces = draw(CUTS)(body) if len(body) < 20_000 else [body]
    return b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(map(chunk, pieces)) + last


def _badly_framed(draw: st.DrawFn, body: bytes) -> bytes:
    way = draw(st.sampled_from(["head", "chunks", "cut", "surplus"]))
    if way == "head":
        return draw(_FRAMINGS) + b"\r\n\r\n" + body
    if way == "chunks":
        coded = draw(spoiled_bytes(b"".join(map(chunk, [body[:9] or b"x", body[9:] or b"y"])))) + draw(
            st.sampled_from([b"0\r\n\r\n", b"0\r\nbad trailer\r\n\r\n", b""])
        )
        return b"Transfer-Encoding: chunked\r\n\r\n" + coded
    whole = _framed(draw, body)
    return (
        whole + draw(st.sampled_from(ODD_BYTES))
        if way == "surplus"
        else whole[: draw(st.integers(0, len(whole)))]
    )


@st.composite
def record_queries(draw: st.DrawFn) -> str:
    """The target of a request to the records API."""
    values = {
        "q": st.one_of(
            st.sampled_from(
                [
                    "model:m",
                    'initiator:"me"',
                    "session_id:x",
                    "started_after:2026-01-01T00:00:00Z",
                    "started_before:0001-01-01T00:00:00+23:59",
                    "started_after:9999-12-31T23:59:59-23:59",
                ]
            ),
            st.text(max_size=30),
        ),
        "limit": st.sampled_from(
            ["0", "1", "1000", "1001", "-1", "1e3", "９", "9" * 5000, "", "NaN", "1_0", " 1"]
        ),
        "offset": st.sampled_from(["0", "5", "2147483648", "-1", "x", str(2**63)]),
        "after_id": st.one_of(st.sampled_from(["", "x", "0" * 36, "\0", "'", "%"]), st.text(max_size=10)),
        "other": st.text(max_size=5),
    }
    names = draw(st.lists(st.sampled_from(list(values)), max_size=4))
    pairs = [f"{name}={quote(draw(values[name]).encode('utf-8', 'surrogatepass'))}" for name in names]
    return f"/interceptions?{'&'.join(pairs)}{draw(st.sampled_from(['', '&', '&%ff=%fe', '&q=%ed%a0%80', '&limit']))}"


PLAIN = json.dumps({"model": "plain", "messages": [{"role": "user", "content": "the plain one"}]}).encode()
