"""The bridge before clients that trick, stall, flood, lie or leave."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from tests.conftest import providers
from tests.support.dialogue import ASK, ASK_BLOCKING, CHAT, MESSAGES, START
from tests.support.robustness import MIB, check_still_serves, resident_mib
from tests.support.server import PREFIX, Client, Server, wait_until
from tests.support.upstream import (
    LAST_CHUNK,
    WAIT_FOR_CLOSE,
    ReceivedRequest,
    Step,
    Upstream,
    chunk,
    event_stream,
    head,
    http_response,
    stream_head,
)

RESPONSES = "/openai/v1/responses"
COUNT = "/anthropic/v1/messages/count_tokens"
MODELS = "/anthropic/v1/models"
CENTRAL = "sk-ant-central-0123456789"
BODY = b'{"model":"m","messages":[]}'


def raw(server: Server, said: bytes) -> tuple[int, bytes]:
    """Sends bytes as they are on a connection of their own; the first answer's status, and all
    that came until the server has ended it, which a second, sound request brings about."""
    client = server.connect()
    with contextlib.suppress(ConnectionError):
        client.sock.sendall(said)
    found = b""
    with contextlib.suppress(ConnectionError):
        while piece := client.sock.recv(65536):
            found += piece
    client.close()
    assert b"Traceback" not in found
    return int(found.split(b" ", 2)[1]) if found else 0, found


def post(
    server: Server, body: bytes, path: str = MESSAGES, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    client = server.connect()
    client.send("POST", path, body, **headers)
    status, got = client.head()
    found, whole = client.body(got)
    client.close()
    assert whole
    assert b"Traceback" not in found
    return status, got, found


def closing(*lines: str, method: str = "GET", path: str = f"{PREFIX}{MODELS}", body: str = "") -> bytes:
    """A request after which the server ends the connection."""
    said = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *lines, "", body]
    return "\r\n".join(said).encode("latin-1")


# Paths

TARGETS = [
    "{}/..", "{}/../x", "{}/../../v1/files", "{}/./x", "{}/%2e%2e/x", "{}/%2E%2E%2Fx", "{}/.%2e/x", "{}/%252e%252e/x", "{}/..%2fx",
    "{}/..%5cx", "{}/..\\x", "{}//x", "{}/%2f%2fx", "{}/%2F", "{}/a;b", "{}/..;/x", "{}/a%3bb", "{}/a%00", "{}/%00", "{}/a%0ab", "{}/a%0d%0ab",
    "{}/a%20b", "{}/a%09b", "{}/a%7fb", "{}/%c0%ae%c0%ae/x", "{}/%e9", "{}/%ef%bc%8e%ef%bc%8e/x", "{}/%ef%bc%8f/x", "{}/%e2%80%a5/x", "{}/..%c1%9cx", "{}/\xc3\xa9", "{}/a%23b", "{}/a%3fb", "{}/a#b", "{}#/x", "{}/%", "{}/%zz", "{}/%2", "{}/a%25b",
    "{}/a|b", '{}/a"b', "{}/<x>", "{}/[x]", "{}/a^b", "{}/{{x}}", "{}/`x`", "/{}", "//evil{}", "/.{}", "/..{}", "/x/..{}", "/%2e{}",
    "http://evil/{}", "http://evil//{}/x", "http://evil/x/..{}/y", "http:/{}/x", "http:{}/x", "http://[::1{}/x", "?{}/x", "#{}/x", "\\{}/x", "*{}/x", "evil{}/x", "@evil{}/x",
]  # fmt: skip
WILD = [
    f"{PREFIX}{path}"
    for path in (MODELS, "/openai/v1/responses", "/copilot/mcp", "/second/api/event_logging")
]


@pytest.mark.parametrize("target", TARGETS)
def test_no_trick_reaches_an_upstream(server: Server, upstream: Upstream, target: str) -> None:
    for path in WILD:
        said = closing("Authorization: Bearer own-key", path=target.format(path))
        status, _ = raw(server, said)
        assert status in (400, 404)
    for path in (MESSAGES, CHAT, "/copilot/v1/messages"):
        said = closing(
            "Authorization: Bearer own-key",
            "Content-Length: 27",
            method="POST",
            path=target.format(PREFIX + path),
            body=BODY.decode(),
        )
        assert raw(server, said)[0] in (400, 404)
    assert upstream.requests == []
    check_still_serves(server, upstream)


@pytest.mark.parametrize(
    ("target", "heard"),
    [
        ("http://evil{}", "/v1/models"), ("http://a@evil:99{}?a=b", "/v1/models?a=b"), ("ftp://x{}/a", "/v1/models/a"),
        ("{}?../../x", "/v1/models?../../x"), ("{}?a=%0d%0aX-Y:%20z", "/v1/models?a=%0d%0aX-Y:%20z"), ("{}?x#y", "/v1/models?x"),
        ("{}?http://evil/", "/v1/models?http://evil/"), ("{}?", "/v1/models"), ("{}/@evil:80", "/v1/models/@evil:80"),
    ],
)  # fmt: skip
def test_a_target_never_names_another_host(
    server: Server, upstream: Upstream, target: str, heard: str
) -> None:
    upstream.enqueue(http_response(200, b"{}"))
    assert raw(server, closing(path=target.format(f"{PREFIX}{MODELS}")))[0] == 200
    assert (upstream.requests[0].target, upstream.requests[0].header("host")) == (
        heard,
        f"127.0.0.1:{upstream.port}",
    )


@pytest.mark.parametrize(
    "lines", [["SCRIPT_NAME: /x"], ["PATH_INFO: /v1/files"], [f"SCRIPT_NAME: {PREFIX}/anthropic"]]
)
def test_headers_do_not_move_the_path(server: Server, upstream: Upstream, lines: list[str]) -> None:
    upstream.handler = lambda heard: [http_response(200, b"{}")]
    for path in (MODELS, "/anthropic/v1/files", f"{PREFIX}{MODELS}"):
        raw(server, closing(*lines, path=PREFIX + path))
        raw(server, closing(*lines, path="/x" + PREFIX + path))
    assert {heard.target for heard in upstream.requests} <= {"/v1/models"}


@pytest.mark.parametrize(
    "method", ["TRACE", "CONNECT", "PROPFIND", "LOCK", "PRI", "get", "G@T", "GET\x00", "A" * 30]
)
@pytest.mark.parametrize("path", [MESSAGES, MODELS, "/copilot/mcp/x", "/interceptions", "/nobody", ""])
def test_odd_methods_reach_no_upstream(server: Server, upstream: Upstream, method: str, path: str) -> None:
    """TRACE would be answered with the central key."""
    status, said = raw(server, closing("Authorization: Bearer tracer-77", method=method, path=PREFIX + path))
    assert status in (400, 404, 405)
    assert b"tracer-77" not in said
    assert upstream.requests == []
    check_still_serves(server, upstream)


@pytest.mark.parametrize(
    "line", ["CONNECT 127.0.0.1:80", "CONNECT 127.0.0.1", "OPTIONS *", "GET 127.0.0.1:80", "POST"]
)
def test_a_line_without_a_path_reaches_no_upstream(server: Server, upstream: Upstream, line: str) -> None:
    said = f"{line} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    assert raw(server, said.encode())[0] in (400, 404)
    assert upstream.requests == []
    check_still_serves(server, upstream)


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PATCH", "DELETE", "PUT", "GET"])
def test_methods_pass_on_passthroughs_alone(server: Server, upstream: Upstream, method: str) -> None:
    upstream.enqueue(http_response(200, b"" if method == "HEAD" else b"{}"))
    status, said = raw(server, closing(method=method))
    assert (status, said.endswith(b"\r\n\r\n" if method == "HEAD" else b"{}")) == (200, True)
    assert raw(server, closing(method=method, path=PREFIX + MESSAGES))[0] == 404
    assert [heard.method for heard in upstream.requests] == [method]
    check_still_serves(server, upstream)


# Smuggling

INNER = f"POST {PREFIX}{MESSAGES} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Smuggled: 1\r\nContent-Length: 27\r\n\r\n{BODY.decode()}"
CHUNKED = f"{len(BODY):x}\r\n{BODY.decode()}\r\n0\r\n\r\n"
FRAMINGS = [
    ("Content-Length: 27\r\nTransfer-Encoding: chunked", CHUNKED), ("Transfer-Encoding: chunked\r\nContent-Length: 4", CHUNKED),
    *((f"Content-Length: {value}", BODY.decode()) for value in ("27, 27", "27\r\nContent-Length: 27", "27\r\nContent-Length: 200", "+27", "-1", "2_7", "0x1b", "", "27.0", "\u0662")),
    ("Content-Length : 27", BODY.decode()), ("Content-Length: 0\r\nContent-Length: 27", BODY.decode()),
    *((f"Transfer-Encoding: {value}", CHUNKED) for value in ("xchunked", "chunked, identity", "chunked, chunked", "\x0bchunked", "chunked\x00", "identity", '"chunked"', "chunked;q=1", "\r\n chunked", "chunked\r\nTransfer-Encoding: identity")),
    ("Transfer-Encoding : chunked", CHUNKED), (" Transfer-Encoding: chunked", CHUNKED),
    ("X: y\rTransfer-Encoding: chunked", CHUNKED), ("X: y\nTransfer-Encoding: chunked", CHUNKED), ("X: y\r\n Transfer-Encoding: chunked", CHUNKED),
    ("Content-Length: 27\nTransfer-Encoding: chunked", CHUNKED), ("No colon\r\nContent-Length: 27", BODY.decode()),
    *(("Transfer-Encoding: chunked", bad) for bad in (
        f"1b\n{BODY.decode()}\r\n0\r\n\r\n", f"0x1b\r\n{BODY.decode()}\r\n0\r\n\r\n", f"+1b\r\n{BODY.decode()}\r\n0\r\n\r\n", f"1_b\r\n{BODY.decode()}\r\n0\r\n\r\n",
        f"-1\r\n{BODY.decode()}\r\n0\r\n\r\n", f"1b;a\nb\r\n{BODY.decode()}\r\n0\r\n\r\n", f"1b\r\n{BODY.decode()}XX0\r\n\r\n", f"1b \r\n{BODY.decode()}\r\nzz\r\n\r\n",
        f"1b\r\n{BODY.decode()}\r\n0\r\nContent-Length: 5\r\n\r\n", f"1b\r\n{BODY.decode()}\r\n0\r\nbad trailer\r\n\r\n",
    )),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "body"), FRAMINGS)
def test_framing_that_can_be_read_in_two_ways_smuggles_nothing(
    server: Server, upstream: Upstream, lines: str, body: str
) -> None:
    """What stands behind the request is never taken for one."""
    upstream.handler = lambda heard: [http_response(200, b"{}")]
    for path in (MESSAGES, COUNT):
        start = f"POST {PREFIX}{path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n\r\n{body}"
        status, said = raw(server, (start + INNER).encode("utf-8"))
        assert status // 100 in (4, 5)
        assert status != 500
        assert b"HTTP/1.1 200" not in said
    assert upstream.requests == []
    check_still_serves(server, upstream)


@pytest.mark.parametrize(
    ("lines", "body"), [("Content_Length: 27", BODY.decode()), ("Transfer_Encoding: chunked", CHUNKED)]
)
def test_an_underscore_frames_nothing(server: Server, upstream: Upstream, lines: str, body: str) -> None:
    upstream.handler = lambda heard: [http_response(200, b"{}")]
    start = f"POST {PREFIX}{COUNT} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n\r\n{body}"
    raw(server, (start + INNER).encode())
    assert [heard.body for heard in upstream.requests] == [b""]
    check_still_serves(server, upstream)


@pytest.mark.parametrize(
    "lines",
    ["Transfer-Encoding: ChunKed", "Transfer-Encoding:\tchunked", "Transfer-Encoding: chunked \r\nX: y"],
)
@pytest.mark.parametrize(
    "last", ["0\r\n\r\n", "0;a=b\r\n\r\n", "0\r\nX-Api-Key: stolen\r\nX-Trailer: 1\r\n\r\n", "000\r\n\r\n"]
)
def test_a_sound_chunked_body_arrives_as_one_of_a_length(
    server: Server, upstream: Upstream, lines: str, last: str
) -> None:
    upstream.enqueue(http_response(200, b"{}"))
    body = f"5;x=y\r\n{BODY[:5].decode()}\r\n{len(BODY) - 5:X}\r\n{BODY[5:].decode()}\r\n{last}"
    assert raw(server, closing(lines, method="POST", path=PREFIX + MESSAGES, body=body))[0] == 200
    heard = upstream.requests[0]
    assert (heard.body, heard.header("content-length"), heard.header("x-api-key")) == (BODY, "27", CENTRAL)
    assert not {"transfer-encoding", "x-trailer"} & heard.names()
    check_still_serves(server, upstream)


# Headers


@pytest.mark.parametrize(
    "lines",
    [
        ["Authorization: Bearer one", "Authorization: Bearer two"], ["X-Api-Key: one", "X-Api-Key: two"],
        ["Authorization: Bearer one", "Authorization: Bearer aib_two"], ["X-Api-Key: aib_two, one"], ["X-Api-Key: one,aib_two"],
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", [MESSAGES, MODELS])
def test_a_doubled_credential_is_401(server: Server, upstream: Upstream, lines: list[str], path: str) -> None:
    """Joined by the server, it would be sent on with a gateway token in it."""
    method = "POST" if path == MESSAGES else "GET"
    more = [f"Content-Length: {len(BODY)}"] if path == MESSAGES else []
    said = closing(*lines, *more, method=method, path=PREFIX + path, body=BODY.decode() if more else "")
    status, answered = raw(server, said)
    assert (status, upstream.requests) == (401, [])
    assert b"two" not in answered
    check_still_serves(server, upstream)


@pytest.mark.parametrize(
    ("lines", "heard"),
    [
        (["X-Api-Key: one", "Authorization: Bearer two"], {"x-api-key": "one", "authorization": None}),
        (["Authorization: Basic abc"], {"x-api-key": CENTRAL, "authorization": None}),
        (["Authorization: Bearer aib_x", "X-Api-Key: aib_y", "X-AIBridge-Token: aib_z"], {"x-api-key": CENTRAL, "authorization": None}),
        (["Authorization:", "X-Api-Key:  "], {"x-api-key": CENTRAL, "authorization": None}),
        (["Connection: X-Api-Key, Authorization, Host, Content-Length, Accept-Encoding"], {"x-api-key": CENTRAL, "accept-encoding": "identity", "content-length": "27"}),
        (["Connection: X-AI-Bridge-Actor-ID"], {"x-api-key": CENTRAL}),
        (["X_Api_Key: evil", "X-Api_Key: evil", "Accept_Encoding: evil", "Content_Type: evil"], {"x-api-key": CENTRAL, "accept-encoding": "identity", "content-type": None}),
        (["Transfer_Encoding: evil", "TE: trailers", "Upgrade: h2c", "HTTP2-Settings: AAMA", "Keep-Alive: 9", "Proxy-Connection: evil"], {"x-api-key": CENTRAL, "te": None, "upgrade": None, "http2-settings": None, "keep-alive": None, "proxy-connection": None, "transfer-encoding": None}),
    ],
)  # fmt: skip
def test_what_the_upstream_hears_is_ours(
    server: Server, upstream: Upstream, lines: list[str], heard: dict[str, str | None]
) -> None:
    upstream.enqueue(http_response(200, b"{}"))
    said = closing(*lines, "Content-Length: 27", method="POST", path=PREFIX + MESSAGES, body=BODY.decode())
    client = server.connect()
    client.sock.sendall(said.replace(b"Connection: close\r\n", b""))
    assert client.head()[0] == 200
    (one,) = upstream.requests
    assert {name: one.header(name) for name in heard} == heard
    assert one.header("host") == f"127.0.0.1:{upstream.port}"
    assert not re.search("evil|aib_", str(one.headers))
    check_still_serves(server, upstream)


@pytest.mark.parametrize(
    "name",
    ["X-AI-Bridge-Actor-ID", "x-ai-bridge-actor-id", "X_AI_Bridge_Actor_ID", "X-AI_Bridge-Actor_ID", "X-AI-BRIDGE-ACTOR-Metadata-Team", "X-Ai-Bridge-Actor-"],
)  # fmt: skip
def test_actors_cannot_be_spoofed(server: Server, upstream: Upstream, name: str) -> None:
    upstream.handler = lambda heard: [http_response(200, b"{}")]
    for path in ("/second/v1/messages", MESSAGES):
        said = closing(
            f"{name}: root",
            f"{name}: admin",
            "X-Api-Key: own",
            "Content-Length: 27",
            method="POST",
            path=PREFIX + path,
            body=BODY.decode(),
        )
        assert raw(server, said)[0] == 200
    sent, unsent = upstream.requests
    assert [value for key, value in sent.headers if "actor" in key.lower()] == ["local"]
    assert [value for key, value in unsent.headers if "actor" in key.lower()] == []


@pytest.mark.parametrize(
    "lines",
    [
        ["X: a\0b"], ["X: a\x1bb"], ["X: a\rb"], ["X: a\nSet: b"], ["X: a", " folded: b"], ["X : a"], [": a"], ["No colon"], ["X\xe9: a"], ["Host: other"],
        [f"X-{n}: y" for n in range(10_000)], ["X: y"] * 10_000, ["X: " + "y" * 40_000], ["Content-Type: a", "Content-Type: b"], ["Expect: miracles"],
    ],
)  # fmt: skip
def test_headers_that_are_none_are_refused(server: Server, upstream: Upstream, lines: list[str]) -> None:
    assert raw(server, closing(*lines))[0] in (400, 417, 431)
    assert upstream.requests == []
    check_still_serves(server, upstream)


def test_expectations_are_met_here(server: Server, upstream: Upstream) -> None:
    upstream.enqueue(http_response(200, b"{}"))
    client = server.connect()
    client.sock.sendall(
        closing("Expect: 100-continue", "Content-Length: 27", method="POST", path=PREFIX + MESSAGES)
    )
    assert client.head()[0] == 100
    client.sock.sendall(BODY)
    assert client.head()[0] == 200
    assert upstream.requests[0].header("expect") is None
    assert upstream.requests[0].body == BODY


LOG_LINE = re.compile(r"\[[^\]]+\] \[\d+\] \[[A-Z]+\] [^\x00-\x1f\x7f]*")
FAKE = "[2026-01-01 00:00:00 +0000] [1] [CRITICAL] fake"


def test_each_line_of_the_log_is_the_servers_own(server: Server, upstream: Upstream) -> None:
    before = len(server.log.read_text().splitlines())
    upstream.handler = lambda heard: [http_response(200, b"{}")]
    coded = FAKE.replace(" ", "%20").replace("[", "%5b").replace("]", "%5d")
    for said in (
        closing(path=f"{PREFIX}/nobody/%0d%0a{coded}%1b[31m"), closing(path=f"/%0a{coded}"), closing(path=f"{PREFIX}{MODELS}?%0a{coded}"),
        closing(f"User-Agent: x\r{FAKE}"), closing(f"User-Agent: x\n{FAKE}"), closing(f"User-Agent: \x1b[31m{FAKE}"), closing(f"X\r\n{FAKE}"),
        closing(f"Expect: x\x85{FAKE}"), closing(f"Transfer-Encoding: \x85{FAKE}"), closing(f"SCRIPT_NAME: /\x85{FAKE}"), closing(method=f"X\x1b{FAKE.split(maxsplit=1)[0]}"),
        f"GET /\n{FAKE} HTTP/1.1\r\n\r\n".encode(), f"\n{FAKE}\r\n\r\n".encode(), f"GET / HTTP/1.1\n{FAKE}\r\n\r\n".encode(),
    ):  # fmt: skip
        raw(server, said)
    model = json.dumps(
        {"model": f"m\r\n{FAKE}\x1b", "messages": [{"role": "user", "content": f"\n{FAKE}"}]}
    ).encode()
    status, got, _ = post(server, model, User_Agent=f"x\x85{FAKE}")
    assert (status, server.record(got["x-aibridge-interception-id"])["model"]) == (200, f"m\r\n{FAKE}\x1b")
    lines = server.log.read_text().split("\n")[before:-1]
    assert lines
    assert all(LOG_LINE.fullmatch(line) for line in lines)
    assert not any(line.startswith(FAKE) for line in lines)


# Bodies

LARGE = 34 * MIB
APIS = [
    (MESSAGES, b'"type": "request_too_large"'),
    (CHAT, b'"code": "request_too_large"'),
    (RESPONSES, b'"code": "request_too_large"'),
]


@pytest.mark.parametrize("path", [MESSAGES, CHAT, RESPONSES, "/copilot/v1/messages", COUNT])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_413(
    server: Server, upstream: Upstream, path: str, chunked: bool
) -> None:
    client = server.connect()
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {LARGE}"
    client.sock.sendall(closing("Authorization: Bearer own", framing, method="POST", path=PREFIX + path))
    with contextlib.suppress(ConnectionError):  # it is told before it has sent all
        for _ in range(LARGE // MIB):
            client.sock.sendall(chunk(b" " * MIB) if chunked else b" " * MIB)
        client.sock.sendall(LAST_CHUNK if chunked else b"")
    status, headers = client.head()
    told = json.loads(client.body(headers)[0])["error"]
    assert (status, headers["x-should-retry"]) == (413, "false")
    assert (told["type"], told.get("code", told["type"])) == ("request_too_large", "request_too_large")
    assert "32MiB" in told["message"]
    assert upstream.requests == []
    check_still_serves(server, upstream)


def test_a_body_that_is_just_small_enough_passes(server: Server, upstream: Upstream) -> None:
    body = BODY[:-1] + b',"pad":"' + b"x" * (32 * MIB - len(BODY) - 9) + b'"}'
    upstream.enqueue(http_response(200, b"{}"))
    assert len(body) == 32 * MIB
    assert post(server, body)[0] == 200
    assert upstream.requests[0].body == body


JSONS = [
    b"", b" ", b"null", b"5", b'"x"', b"[]", b"{", b"}", b"{}{}", b"{},", b"{'a':1}", b'{"a":1,}', b'{"a":01}', b'{"a":.5}', b'{"a":1e}', b'{"a":+1}', b"{a:1}",
    b'{"a":NaN}', b'{"a":-Infinity}', b'{"a":"\xff"}', b'{"a":"\xed\xa0\x80"}', b'{"a":"\xc0\xaf"}', b'{"a":"\n"}', b'{"a":"\0"}', b'{"a":"\\x"}', b'{"a":"\\u12"}', b"\0{}", b"{}\0", b"\xef\xbb\xbf{}",
    *('{"model":"m","messages":[]}'.encode(coding) for coding in ("utf-16", "utf-16-be", "utf-32")), b"/**/{}", b"{}//", b"x=1&y=2", b"<x/>", bytes(range(256)),
    *(opening * 100_000 for opening in (b"[", b'{"a":', b'{"messages":[', b'[{"a":')), b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b'{"model":"\\ud800","a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b'{"model":"\\ud800","a":' + b"9" * 5000 + b"}",
]  # fmt: skip


@pytest.mark.parametrize("path", [MESSAGES, CHAT, RESPONSES])
@pytest.mark.parametrize("body", JSONS, ids=lambda body: repr(body[:20]))
def test_what_is_no_json_object_is_400(server: Server, upstream: Upstream, path: str, body: bytes) -> None:
    status, _, said = post(server, body, path)
    told = json.loads(said)["error"]
    assert status == 400, said
    assert (told["type"], told.get("code", "invalid_json")) == ("invalid_request_error", "invalid_json")
    assert upstream.requests == []
    check_still_serves(server, upstream)


VALUES = [
    b"null", b"5", b"-0.0", b"1e400", b"9" * 5000, b"true", b'"x"', b'""', b"[]", b"{}", b"[null]", b"[[]]", b"[5]", b'[{"role":"user"}]', b'[{"role":"user","content":5}]', b'[{"role":"user","content":[5,null,{"type":"text","text":7}]}]',
    b'[{"role":"user","content":"\\ud800 \\u0000"}]', b'[{"role":["user"],"content":"x"}]', b'[{"role":"user","content":' + b"[" * 200 + b"]" * 200 + b"}]", b'{"include_usage":"yes","x":' + b"9" * 5000 + b"}",
    b'{"include_usage":false,"x":1e999}', b'[{"type":5,"call_id":{}}]', b'{"user_id":5}', b'{"user_id":"{\\"session_id\\":5}"}', b'{"user_id":"{\\"session_id\\":' + b"[" * 500 + b'"}', b'"' + b"x" * 100_000 + b'"',
]  # fmt: skip
MEMBERS = ["model", "stream", "messages", "input", "metadata", "stream_options"]


@pytest.mark.parametrize("path", [MESSAGES, CHAT, RESPONSES])
@pytest.mark.parametrize("member", MEMBERS)
def test_wrong_types_pass_as_they_came(server: Server, upstream: Upstream, path: str, member: str) -> None:
    """Alone, and doubled with a sound one before."""
    upstream.handler = lambda heard: [http_response(200, b"{}")]
    client = server.connect()
    for value in VALUES:
        odd = b'"%s":%s' % (member.encode(), value)
        for inside in (odd, b'"%s":"x",%s' % (member.encode(), odd)):
            body = b"{" + inside + b"}"
            client.send("POST", path, body)
            status, headers = client.head()
            said, _ = client.body(headers)
            assert status == 200 or (status == 400 and b"9" * 5000 in odd), said
            if status == 200 and not (path == CHAT and b'"stream":true' in body):
                assert upstream.requests[-1].body == body
    check_still_serves(server, upstream)


@pytest.mark.parametrize(
    "extra",
    [
        b'"stream":true',
        b'"stream":true,"stream_options":null',
        b'"stream":true,"stream_options":{"include_usage":false,"n":123456789012345678901234567890}',
        b'"stream":true,"stream":true',
        b'"stream":true,"x":"\\ud800"',
    ],
)
def test_asking_for_usage_never_breaks_a_body(server: Server, upstream: Upstream, extra: bytes) -> None:
    upstream.enqueue(http_response(200, b"{}"))
    assert post(server, b'{"model":"m",' + extra + b',"messages":[]}', CHAT)[0] == 200
    assert json.loads(upstream.requests[0].body)["model"] == "m"


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        ("gzip", lambda: gzip.compress(b" " * (200 * MIB)), 413), ("zstd", lambda: zstandard.compress(b" " * (200 * MIB)), 413),
        ("gzip, gzip", lambda: gzip.compress(gzip.compress(b" " * (200 * MIB))), 413), ("gzip", lambda: gzip.compress(b"") * 1_000_000, 400),
        ("zstd", lambda: zstandard.compress(b"") * 1_000_000, 400), ("gzip", lambda: gzip.compress(BODY)[:-12], 400), ("gzip", lambda: BODY, 400), ("br", lambda: BODY, 400), ("deflate", lambda: BODY, 400),
        ("compress", lambda: BODY, 415), ("gzip, nonsense", lambda: gzip.compress(BODY), 415), ("\xff", lambda: BODY, 415), (", ".join(["gzip"] * 2000), lambda: BODY, 415),
    ],
)  # fmt: skip
def test_a_coding_that_cannot_be_read_is_refused(
    server: Server, upstream: Upstream, coding: str, body: object, status: int
) -> None:
    check_still_serves(server, upstream)
    before = resident_mib(server)
    got, headers, _ = post(server, body(), Content_Encoding=coding)
    assert got == status
    assert headers.get("x-should-retry") == ("false" if status != 400 else None)
    assert resident_mib(server) - before < 150
    assert len(upstream.requests) == 1
    check_still_serves(server, upstream)


DENSE = {
    "ones": (b'{"model":"m","messages":[%s1]}', b"1,", 200), "objects": (b'{"model":"m","messages":[%s1]}', b"{},", 200),
    "parts": (b'{"model":"m","messages":[{"role":"user","content":[%s1]}]}', b"{},", 200), "metadata": (b'{"model":"m","metadata":[%s1]}', b"[[[[]]]],", 200),
    "members": (b'{"stream":true,%s"model":"m"}', b'"a":1,', 200), "lone surrogate": (b'{"model":"\\ud800","x":[%s1]}', b"[],", 400), "broken": (b'{"model":"m","x":[%s1]', b"[],", 400),
}  # fmt: skip


@pytest.mark.parametrize("path", [MESSAGES, CHAT, RESPONSES])
@pytest.mark.parametrize("name", DENSE)
def test_a_body_of_millions_of_values_leaves_memory_bounded(
    server: Server, upstream: Upstream, path: str, name: str
) -> None:
    """Built as objects, 16 MB of JSON would take half a gigabyte, and seconds of everybody's."""
    frame, piece, expected = DENSE[name]
    body = frame % (piece * (16 * MIB // len(piece)))
    body = body.replace(b'"messages"', b'"input"') if path == RESPONSES else body
    check_still_serves(server, upstream)
    with peak_of(server) as grown:
        upstream.enqueue(http_response(200, b"{}"))
        status, headers, said = post(server, body, path)
    assert status == expected, said
    assert grown[0] < 250
    if status == 200:
        assert upstream.requests[-1].body == body
        assert server.record(headers["x-aibridge-interception-id"])["model"] == "m"
    upstream.reset()
    check_still_serves(server, upstream)


@contextlib.contextmanager
def peak_of(server: Server) -> Iterator[list[int]]:
    """By how many MiB the worker's memory grew at the most meanwhile."""
    (worker,) = server.workers()
    Path(f"/proc/{worker}/clear_refs").write_text("5")
    before, grown = resident_mib(server), []
    yield grown
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{worker}/status").read_text())
    assert peak
    grown.append(int(peak[1]) // 1024 - before)


@pytest.mark.parametrize("streaming", [False, True])
def test_an_answer_of_millions_of_values_leaves_memory_bounded(
    server: Server, upstream: Upstream, streaming: bool
) -> None:
    said = b'{"id":"m","content":[' + b"[]," * (5 * MIB) + b"1]}"
    said = b"data: " + said + b"\n\n" if streaming else said
    upstream.handler = lambda heard: event_stream(said, 60_000) if streaming else [http_response(200, said)]
    with peak_of(server) as grown:
        status, headers, found = post(server, ASK if streaming else ASK_BLOCKING)
    assert (status, found == said) == (200, True)
    assert grown[0] < 250
    assert server.record(headers["x-aibridge-interception-id"])["ended_at"]
    upstream.reset()
    check_still_serves(server, upstream)


# Slow ones


def test_slow_clients_hold_nobody_up(server: Server, upstream: Upstream) -> None:
    """Some stop within the head, some within the body, some after it."""
    head_, body = (
        f"POST {PREFIX}{MESSAGES} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 27\r\n\r\n".encode(),
        BODY,
    )
    slow = [server.connect() for _ in range(200)]
    for number, client in enumerate(slow):
        client.sock.sendall((head_ + body)[: 1 + number % (len(head_) + len(body) - 1)])
    check_still_serves(server, upstream)
    assert len(upstream.requests) == 1
    for number, client in enumerate(slow[:40]):
        upstream.enqueue(http_response(200, b"{}"))
        for byte in (head_ + body)[1 + number % (len(head_) + len(body) - 1) :]:
            client.sock.sendall(bytes([byte]))
        assert client.body(client.head()[1]) == (b"{}", True)
    server.disconnect()
    check_still_serves(server, upstream)


class Flood:
    """An answer of so many MiB that counts what was taken."""

    def __init__(self, opening: bytes, framed: bool, size: int) -> None:
        self.taken = 0
        self._opening, self._framed, self._size = opening, framed, size

    def __call__(self, heard: ReceivedRequest) -> Iterator[Step]:
        yield self._opening
        block = (b"data: " + b"x" * 65_528 + b"\n\n") * 16
        for _ in range(self._size):
            yield chunk(block) if self._framed else block
            self.taken += 1
        yield LAST_CHUNK if self._framed else b""

    def stalls(self) -> bool:
        """Nothing was taken for a while."""
        before = self.taken
        time.sleep(0.3)
        return before == self.taken > 0


FLOODS = [
    (ASK, MESSAGES, True, 200),
    (ASK_BLOCKING, MESSAGES, False, 200),
    (b'{"model":"m","stream":true,"messages":[]}', CHAT, True, 64),
    (BODY, COUNT, False, 100),
]


def flooded(upstream: Upstream, framed: bool, size: int) -> Flood:
    opening = stream_head() if framed else head(200, f"Content-Length: {size * MIB}")
    upstream.handler = flood = Flood(opening, framed, size)
    return flood


@pytest.mark.parametrize(("body", "path", "framed", "size"), FLOODS)
def test_a_slow_reader_stops_the_upstream_and_not_the_memory(
    server: Server, upstream: Upstream, body: bytes, path: str, framed: bool, size: int
) -> None:
    check_still_serves(server, upstream)
    before = resident_mib(server)
    flood = flooded(upstream, framed, size)
    client = server.connect()
    client.send("POST", path, body)
    _, headers = client.head()
    wait_until(flood.stalls)
    assert flood.taken < 60
    assert resident_mib(server) - before < 80
    check_still_serves(server, upstream)
    found, whole = client.body(headers)
    assert (len(found), whole, flood.taken) == (size * MIB, True, size)
    assert resident_mib(server) - before < 120
    check_still_serves(server, upstream)


# Leaving


@pytest.mark.parametrize(("body", "path", "framed", "size"), FLOODS)
def test_a_slow_reader_that_leaves_ends_it_all(
    server: Server, upstream: Upstream, body: bytes, path: str, framed: bool, size: int
) -> None:
    flood = flooded(upstream, framed, size)
    client = server.connect()
    client.send("POST", path, body)
    _, headers = client.head()
    wait_until(flood.stalls)
    client.close()
    wait_until(lambda: upstream.open_connections() == 0)
    if path != COUNT:
        assert server.record(headers["x-aibridge-interception-id"])["error_type"] == "client_closed"
    assert flood.taken < size
    check_still_serves(server, upstream)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"PO",
        b"\r\n",
        b"POST / HTTP/1.1\r\nHost",
        closing("Content-Length: 27", method="POST", path=PREFIX + MESSAGES),
        closing("Transfer-Encoding: chunked", method="POST", path=PREFIX + MESSAGES, body="5\r\n{"),
    ],
)
@pytest.mark.parametrize("how", ["close", "half", "reset"])
def test_who_leaves_before_the_body_is_whole_was_never_there(
    server: Server, upstream: Upstream, sent: bytes, how: str
) -> None:
    count = server.get("/interceptions?limit=1")["count"]
    client = server.connect()
    client.sock.sendall(sent)
    leave(client, how)
    check_still_serves(server, upstream)
    assert len(upstream.requests) == 1
    assert server.get("/interceptions?limit=1")["count"] == count + 1


def leave(client: Client, how: str) -> None:
    if how == "half":
        client.sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            client.stream.read()
    elif how == "reset":
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()


@pytest.mark.parametrize("how", ["close", "half", "reset"])
@pytest.mark.parametrize("path", [MESSAGES, COUNT])
@pytest.mark.parametrize(
    "said", [[], [stream_head()], [stream_head(), chunk(START)], [head(200, "Content-Length: 9"), b"{"]]
)
def test_who_leaves_closes_the_upstream(
    server: Server, upstream: Upstream, how: str, path: str, said: list[bytes]
) -> None:
    upstream.enqueue(*said, WAIT_FOR_CLOSE)
    client = server.connect()
    client.send("POST", path, ASK)
    upstream.wait_for_requests(1)
    if said:
        client.head()
    leave(client, how)
    assert upstream.peer_closed.wait(20)
    if path == MESSAGES:
        (newest,) = server.get("/interceptions?limit=1")["results"]
        assert server.record(newest["id"])["error_type"] == "client_closed"
    check_still_serves(server, upstream)


def test_who_leaves_while_the_body_is_sent_on_closes_the_upstream(server: Server, upstream: Upstream) -> None:
    """The upstream has taken the connection, and reads nothing."""
    taken, left = threading.Event(), threading.Event()

    def hold(sock: socket.socket) -> None:
        sock.recv(1)
        taken.set()
        assert left.wait(20)
        with contextlib.suppress(ConnectionError):
            while sock.recv(MIB):
                pass
        upstream.peer_closed.set()

    upstream.takeover = hold
    client = server.connect()
    client.send("POST", MESSAGES, BODY[:-1] + b',"pad":"' + b"x" * (30 * MIB) + b'"}')
    assert taken.wait(20)
    client.close()
    left.set()
    assert upstream.peer_closed.wait(20)
    (newest,) = server.get("/interceptions?limit=1")["results"]
    assert server.record(newest["id"])["error_type"] == "client_closed"
    upstream.takeover = None
    check_still_serves(server, upstream)


@pytest.fixture(scope="module")
def hole() -> Iterator[str]:
    """Where nobody ever accepts: its queue is full, so that connecting takes for ever."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as stack:
        for _ in range(8):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_who_leaves_while_the_upstream_is_connected_to_is_recorded_so(
    hole: str, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    at_hole = {"type": "anthropic", "name": "hole", "base_url": hole, "keys": [{"value": CENTRAL}]}
    settings = {"providers": [*providers(upstream.url), at_hole], "connect_timeout": 1.5, "drain_delay": 0}
    server = Server(tmp_path_factory.mktemp("hole"), settings).wait_ready()
    stays, leaves = server.connect(), server.connect()
    for client in (stays, leaves):
        client.send("POST", "/hole/v1/messages", ASK)
    wait_until(lambda: server.get("/interceptions")["count"] == 2)
    leaves.close()
    assert stays.head()[0] == 504
    wait_until(lambda: all(one["ended_at"] for one in server.get("/interceptions")["results"]))
    types = {one["error_type"] for one in server.get("/interceptions")["results"]}
    assert types == {"client_closed", "timeout"}
    check_still_serves(server, upstream)
    server.disconnect()
    assert "Traceback" not in server.stop()
