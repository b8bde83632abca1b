"""The bridge against clients that trick, stall, flood, lie or disconnect."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import socket
import threading
from collections.abc import Iterator

import pytest
import zstandard

from tests.conftest import providers
from tests.support.dialogue import ASK, ASK_BLOCKING, CHAT, MESSAGES, START
from tests.support.robustness import (
    MIB,
    check_memory_returns,
    check_still_serves,
    resident_mib,
    send_raw,
    start_flood,
    track_memory_growth,
)
from tests.support.server import PREFIX, Client, Server, wait_until
from tests.support.upstream import (
    LAST_CHUNK,
    WAIT_FOR_CLOSE,
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


def post(
    server: Server, body: bytes, path: str = MESSAGES, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    client = server.connect()
    client.send("POST", path, body, **headers)
    status, response_headers = client.head()
    data, whole = client.body(response_headers)
    client.close()
    assert whole
    assert b"Traceback" not in data
    return status, response_headers, data


def closing_request(
    *lines: str, method: str = "GET", path: str = f"{PREFIX}{MODELS}", body: str = ""
) -> bytes:
    """A request after which the server closes the connection."""
    head_lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *lines, "", body]
    return "\r\n".join(head_lines).encode("latin-1")


# Paths

TARGETS = [
    "{}/..", "{}/../x", "{}/../../v1/files", "{}/./x", "{}/%2e%2e/x", "{}/%2E%2E%2Fx", "{}/.%2e/x", "{}/%252e%252e/x", "{}/..%2fx",
    "{}/..%5cx", "{}/..\\x", "{}//x", "{}/%2f%2fx", "{}/%2F", "{}/a;b", "{}/..;/x", "{}/a%3bb", "{}/a%00", "{}/%00", "{}/a%0ab", "{}/a%0d%0ab",
    "{}/a%20b", "{}/a%09b", "{}/a%7fb", "{}/%c0%ae%c0%ae/x", "{}/%e9", "{}/%ef%bc%8e%ef%bc%8e/x", "{}/%ef%bc%8f/x", "{}/%e2%80%a5/x", "{}/..%c1%9cx", "{}/\xc3\xa9", "{}/a%23b", "{}/a%3fb", "{}/a#b", "{}#/x", "{}/%", "{}/%zz", "{}/%2", "{}/a%25b",
    "{}/a|b", '{}/a"b', "{}/<x>", "{}/[x]", "{}/a^b", "{}/{{x}}", "{}/`x`", "/{}", "//evil{}", "/.{}", "/..{}", "/x/..{}", "/%2e{}",
    "http://evil/{}", "http://evil//{}/x", "http://evil/x/..{}/y", "http:/{}/x", "http:{}/x", "http://[::1{}/x", "?{}/x", "#{}/x", "\\{}/x", "*{}/x", "evil{}/x", "@evil{}/x",
]  # fmt: skip
PASSTHROUGH_PATHS = [
    f"{PREFIX}{path}"
    for path in (MODELS, "/openai/v1/responses", "/copilot/mcp", "/second/api/event_logging")
]


@pytest.mark.parametrize("target", TARGETS)
def test_no_trick_reaches_an_upstream(server: Server, upstream: Upstream, target: str) -> None:
    for path in PASSTHROUGH_PATHS:
        request = closing_request("Authorization: Bearer own-key", path=target.format(path))
        status, _ = send_raw(server, request)
        assert status in (400, 404)
    for path in (MESSAGES, CHAT, "/copilot/v1/messages"):
        request = closing_request(
            "Authorization: Bearer own-key",
            "Content-Length: 27",
            method="POST",
            path=target.format(PREFIX + path),
            body=BODY.decode(),
        )
        assert send_raw(server, request)[0] in (400, 404)
    assert upstream.requests == []
    check_still_serves(server, upstream)


@pytest.mark.parametrize(
    ("target", "upstream_target"),
    [
        ("http://evil{}", "/v1/models"), ("http://a@evil:99{}?a=b", "/v1/models?a=b"), ("ftp://x{}/a", "/v1/models/a"),
        ("{}?../../x", "/v1/models?../../x"), ("{}?a=%0d%0aX-Y:%20z", "/v1/models?a=%0d%0aX-Y:%20z"), ("{}?x#y", "/v1/models?x"),
        ("{}?http://evil/", "/v1/models?http://evil/"), ("{}?", "/v1/models"), ("{}/@evil:80", "/v1/models/@evil:80"),
    ],
)  # fmt: skip
def test_a_target_never_names_another_host(
    server: Server, upstream: Upstream, target: str, upstream_target: str
) -> None:
    upstream.enqueue(http_response(200, b"{}"))
    assert send_raw(server, closing_request(path=target.format(f"{PREFIX}{MODELS}")))[0] == 200
    assert (upstream.requests[0].target, upstream.requests[0].header("host")) == (
        upstream_target,
        f"127.0.0.1:{upstream.port}",
    )


@pytest.mark.parametrize(
    "lines", [["SCRIPT_NAME: /x"], ["PATH_INFO: /v1/files"], [f"SCRIPT_NAME: {PREFIX}/anthropic"]]
)
def test_headers_do_not_move_the_path(server: Server, upstream: Upstream, lines: list[str]) -> None:
    upstream.handler = lambda received: [http_response(200, b"{}")]
    for path in (MODELS, "/anthropic/v1/files", f"{PREFIX}{MODELS}"):
        send_raw(server, closing_request(*lines, path=PREFIX + path))
        send_raw(server, closing_request(*lines, path="/x" + PREFIX + path))
    assert {received.target for received in upstream.requests} <= {"/v1/models"}


@pytest.mark.parametrize(
    "method", ["TRACE", "CONNECT", "PROPFIND", "LOCK", "PRI", "get", "G@T", "GET\x00", "A" * 30]
)
@pytest.mark.parametrize("path", [MESSAGES, MODELS, "/copilot/mcp/x", "/interceptions", "/nobody", ""])
def test_odd_methods_reach_no_upstream(server: Server, upstream: Upstream, method: str, path: str) -> None:
    """An answer to TRACE would repeat the central key."""
    status, response = send_raw(
        server, closing_request("Authorization: Bearer tracer-77", method=method, path=PREFIX + path)
    )
    assert status in (400, 404, 405)
    assert b"tracer-77" not in response
    assert upstream.requests == []
    check_still_serves(server, upstream)


@pytest.mark.parametrize(
    "line", ["CONNECT 127.0.0.1:80", "CONNECT 127.0.0.1", "OPTIONS *", "GET 127.0.0.1:80", "POST"]
)
def test_a_line_without_a_path_reaches_no_upstream(server: Server, upstream: Upstream, line: str) -> None:
    request = f"{line} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    assert send_raw(server, request.encode())[0] in (400, 404)
    assert upstream.requests == []
    check_still_serves(server, upstream)


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PATCH", "DELETE", "PUT", "GET"])
def test_other_methods_pass_on_passthrough_routes_only(
    server: Server, upstream: Upstream, method: str
) -> None:
    upstream.enqueue(http_response(200, b"" if method == "HEAD" else b"{}"))
    status, response = send_raw(server, closing_request(method=method))
    assert (status, response.endswith(b"\r\n\r\n" if method == "HEAD" else b"{}")) == (200, True)
    assert send_raw(server, closing_request(method=method, path=PREFIX + MESSAGES))[0] == 404
    assert [received.method for received in upstream.requests] == [method]
    check_still_serves(server, upstream)


# Smuggling

SMUGGLED = f"POST {PREFIX}{MESSAGES} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Smuggled: 1\r\nContent-Length: 27\r\n\r\n{BODY.decode()}"
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
def test_ambiguous_framing_smuggles_no_request(
    server: Server, upstream: Upstream, lines: str, body: str
) -> None:
    """Bytes after the request are never taken for a second request."""
    upstream.handler = lambda received: [http_response(200, b"{}")]
    for path in (MESSAGES, COUNT):
        start = f"POST {PREFIX}{path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n\r\n{body}"
        status, response = send_raw(server, (start + SMUGGLED).encode("utf-8"))
        assert status // 100 in (4, 5)
        assert status != 500
        assert b"HTTP/1.1 200" not in response
    assert upstream.requests == []
    check_still_serves(server, upstream)


@pytest.mark.parametrize(
    ("lines", "body"), [("Content_Length: 27", BODY.decode()), ("Transfer_Encoding: chunked", CHUNKED)]
)
def test_header_names_with_underscores_do_not_frame_the_body(
    server: Server, upstream: Upstream, lines: str, body: str
) -> None:
    upstream.handler = lambda received: [http_response(200, b"{}")]
    start = f"POST {PREFIX}{COUNT} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n\r\n{body}"
    send_raw(server, (start + SMUGGLED).encode())
    assert [received.body for received in upstream.requests] == [b""]
    check_still_serves(server, upstream)


@pytest.mark.parametrize(
    "lines",
    ["Transfer-Encoding: ChunKed", "Transfer-Encoding:\tchunked", "Transfer-Encoding: chunked \r\nX: y"],
)
@pytest.mark.parametrize(
    "last", ["0\r\n\r\n", "0;a=b\r\n\r\n", "0\r\nX-Api-Key: stolen\r\nX-Trailer: 1\r\n\r\n", "000\r\n\r\n"]
)
def test_a_valid_chunked_body_is_forwarded_with_a_length(
    server: Server, upstream: Upstream, lines: str, last: str
) -> None:
    upstream.enqueue(http_response(200, b"{}"))
    body = f"5;x=y\r\n{BODY[:5].decode()}\r\n{len(BODY) - 5:X}\r\n{BODY[5:].decode()}\r\n{last}"
    assert (
        send_raw(server, closing_request(lines, method="POST", path=PREFIX + MESSAGES, body=body))[0] == 200
    )
    received = upstream.requests[0]
    assert (received.body, received.header("content-length"), received.header("x-api-key")) == (
        BODY,
        "27",
        CENTRAL,
    )
    assert not {"transfer-encoding", "x-trailer"} & received.names()
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
def test_a_repeated_credential_is_401(
    server: Server, upstream: Upstream, lines: list[str], path: str
) -> None:
    """Values that the server joins would be forwarded with a gateway token inside."""
    method = "POST" if path == MESSAGES else "GET"
    framing = [f"Content-Length: {len(BODY)}"] if path == MESSAGES else []
    request = closing_request(
        *lines, *framing, method=method, path=PREFIX + path, body=BODY.decode() if framing else ""
    )
    status, response = send_raw(server, request)
    assert (status, upstream.requests) == (401, [])
    assert b"two" not in response
    check_still_serves(server, upstream)


@pytest.mark.parametrize(
    ("lines", "expected"),
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
def test_headers_sent_upstream_are_the_bridges_own(
    server: Server, upstream: Upstream, lines: list[str], expected: dict[str, str | None]
) -> None:
    upstream.enqueue(http_response(200, b"{}"))
    request = closing_request(
        *lines, "Content-Length: 27", method="POST", path=PREFIX + MESSAGES, body=BODY.decode()
    )
    client = server.connect()
    client.sock.sendall(request.replace(b"Connection: close\r\n", b""))
    assert client.head()[0] == 200
    (received,) = upstream.requests
    assert {name: received.header(name) for name in expected} == expected
    assert received.header("host") == f"127.0.0.1:{upstream.port}"
    assert not re.search("evil|aib_", str(received.headers))
    check_still_serves(server, upstream)


@pytest.mark.parametrize(
    "name",
    ["X-AI-Bridge-Actor-ID", "x-ai-bridge-actor-id", "X_AI_Bridge_Actor_ID", "X-AI_Bridge-Actor_ID", "X-AI-BRIDGE-ACTOR-Metadata-Team", "X-Ai-Bridge-Actor-"],
)  # fmt: skip
def test_actors_cannot_be_spoofed(server: Server, upstream: Upstream, name: str) -> None:
    upstream.handler = lambda received: [http_response(200, b"{}")]
    for path in ("/second/v1/messages", MESSAGES):
        request = closing_request(
            f"{name}: root",
            f"{name}: admin",
            "X-Api-Key: own",
            "Content-Length: 27",
            method="POST",
            path=PREFIX + path,
            body=BODY.decode(),
        )
        assert send_raw(server, request)[0] == 200
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
def test_invalid_headers_are_refused(server: Server, upstream: Upstream, lines: list[str]) -> None:
    assert send_raw(server, closing_request(*lines))[0] in (400, 417, 431)
    assert upstream.requests == []
    check_still_serves(server, upstream)


def test_the_bridge_answers_expect_100_continue(server: Server, upstream: Upstream) -> None:
    upstream.enqueue(http_response(200, b"{}"))
    client = server.connect()
    client.sock.sendall(
        closing_request("Expect: 100-continue", "Content-Length: 27", method="POST", path=PREFIX + MESSAGES)
    )
    assert client.head()[0] == 100
    client.sock.sendall(BODY)
    assert client.head()[0] == 200
    assert upstream.requests[0].header("expect") is None
    assert upstream.requests[0].body == BODY


LOG_LINE = re.compile(r"\[[^\]]+\] \[\d+\] \[[A-Z]+\] [^\x00-\x1f\x7f]*")
FAKE = "[2026-01-01 00:00:00 +0000] [1] [CRITICAL] fake"


def test_no_client_can_forge_a_log_line(server: Server, upstream: Upstream) -> None:
    before = len(server.log.read_text().splitlines())
    upstream.handler = lambda received: [http_response(200, b"{}")]
    encoded = FAKE.replace(" ", "%20").replace("[", "%5b").replace("]", "%5d")
    for request in (
        closing_request(path=f"{PREFIX}/nobody/%0d%0a{encoded}%1b[31m"), closing_request(path=f"/%0a{encoded}"), closing_request(path=f"{PREFIX}{MODELS}?%0a{encoded}"),
        closing_request(f"User-Agent: x\r{FAKE}"), closing_request(f"User-Agent: x\n{FAKE}"), closing_request(f"User-Agent: \x1b[31m{FAKE}"), closing_request(f"X\r\n{FAKE}"),
        closing_request(f"Expect: x\x85{FAKE}"), closing_request(f"Transfer-Encoding: \x85{FAKE}"), closing_request(f"SCRIPT_NAME: /\x85{FAKE}"), closing_request(method=f"X\x1b{FAKE.split(maxsplit=1)[0]}"),
        f"GET /\n{FAKE} HTTP/1.1\r\n\r\n".encode(), f"\n{FAKE}\r\n\r\n".encode(), f"GET / HTTP/1.1\n{FAKE}\r\n\r\n".encode(),
    ):  # fmt: skip
        send_raw(server, request)
    body = json.dumps(
        {"model": f"m\r\n{FAKE}\x1b", "messages": [{"role": "user", "content": f"\n{FAKE}"}]}
    ).encode()
    status, headers, _ = post(server, body, User_Agent=f"x\x85{FAKE}")
    assert (status, server.record(headers["x-aibridge-interception-id"])["model"]) == (
        200,
        f"m\r\n{FAKE}\x1b",
    )
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
    client.sock.sendall(
        closing_request("Authorization: Bearer own", framing, method="POST", path=PREFIX + path)
    )
    with contextlib.suppress(ConnectionError):  # the response comes before all is sent
        for _ in range(LARGE // MIB):
            client.sock.sendall(chunk(b" " * MIB) if chunked else b" " * MIB)
        client.sock.sendall(LAST_CHUNK if chunked else b"")
    status, headers = client.head()
    error = json.loads(client.body(headers)[0])["error"]
    assert (status, headers["x-should-retry"]) == (413, "false")
    assert (error["type"], error.get("code", error["type"])) == ("request_too_large", "request_too_large")
    assert "32MiB" in error["message"]
    assert upstream.requests == []
    check_still_serves(server, upstream)


def test_a_body_at_the_limit_passes(server: Server, upstream: Upstream) -> None:
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
def test_a_body_that_is_no_json_object_is_400(
    server: Server, upstream: Upstream, path: str, body: bytes
) -> None:
    status, _, response = post(server, body, path)
    error = json.loads(response)["error"]
    assert status == 400, response
    assert (error["type"], error.get("code", "invalid_json")) == ("invalid_request_error", "invalid_json")
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
def test_wrong_json_types_pass_unchanged(server: Server, upstream: Upstream, path: str, member: str) -> None:
    """The member alone, and repeated after a valid one."""
    upstream.handler = lambda received: [http_response(200, b"{}")]
    client = server.connect()
    for value in VALUES:
        member_text = b'"%s":%s' % (member.encode(), value)
        for members in (member_text, b'"%s":"x",%s' % (member.encode(), member_text)):
            body = b"{" + members + b"}"
            client.send("POST", path, body)
            status, headers = client.head()
            response, _ = client.body(headers)
            assert status == 200 or (status == 400 and b"9" * 5000 in member_text), response
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
def test_adding_include_usage_never_breaks_a_body(server: Server, upstream: Upstream, extra: bytes) -> None:
    upstream.enqueue(http_response(200, b"{}"))
    assert post(server, b'{"model":"m",' + extra + b',"messages":[]}', CHAT)[0] == 200
    assert json.loads(upstream.requests[0].body)["model"] == "m"


@pytest.mark.parametrize(
    "extra", [b'"x":"\\ud800"', b'"x":[' + b"[]," * 1_500_000 + b"1]"], ids=["surrogate", "dense"]
)
def test_no_usage_is_held_back_that_was_not_asked_for(
    server: Server, upstream: Upstream, extra: bytes
) -> None:
    """Nothing can be added to these bodies, so what the upstream sends of its own is the client's."""
    events = (
        b'data: {"id":"c1","model":"m","choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
        b'data: {"id":"c1","model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":7}}\n\n'
        b"data: [DONE]\n\n"
    )
    upstream.enqueue(*event_stream(events))
    body = b'{"model":"m","stream":true,' + extra + b',"messages":[]}'
    status, headers, data = post(server, body, CHAT)
    assert (status, data, upstream.requests[0].body) == (200, events, body)
    record = server.record(headers["x-aibridge-interception-id"])
    assert (record["wire_exact"], record["token_usages"][0]["output_tokens"]) == (True, 7)


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        ("gzip", lambda: gzip.compress(b" " * (200 * MIB)), 413), ("zstd", lambda: zstandard.compress(b" " * (200 * MIB)), 413),
        ("gzip, gzip", lambda: gzip.compress(gzip.compress(b" " * (200 * MIB))), 413), ("gzip", lambda: gzip.compress(b"") * 1_000_000, 400),
        ("zstd", lambda: zstandard.compress(b"") * 1_000_000, 400), ("gzip", lambda: gzip.compress(BODY)[:-12], 400), ("gzip", lambda: BODY, 400), ("br", lambda: BODY, 400), ("deflate", lambda: BODY, 400),
        ("compress", lambda: BODY, 415), ("gzip, nonsense", lambda: gzip.compress(BODY), 415), ("\xff", lambda: BODY, 415), (", ".join(["gzip"] * 2000), lambda: BODY, 415),
    ],
)  # fmt: skip
def test_a_body_that_cannot_be_decoded_is_refused(
    server: Server, upstream: Upstream, coding: str, body: object, status: int
) -> None:
    check_still_serves(server, upstream)
    before = resident_mib(server)
    actual_status, headers, _ = post(server, body(), Content_Encoding=coding)
    assert actual_status == status
    assert headers.get("x-should-retry") == ("false" if status != 400 else None)
    check_memory_returns(server, before, 150)
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
    """Decoded into objects, 16 MB of JSON take half a gigabyte, and delay all requests by seconds."""
    template, value, expected = DENSE[name]
    body = template % (value * (16 * MIB // len(value)))
    body = body.replace(b'"messages"', b'"input"') if path == RESPONSES else body
    check_still_serves(server, upstream)
    with track_memory_growth(server) as growth:
        upstream.enqueue(http_response(200, b"{}"))
        status, headers, response = post(server, body, path)
    assert status == expected, response
    assert growth[0] < 250
    if status == 200:
        assert upstream.requests[-1].body == body
        assert server.record(headers["x-aibridge-interception-id"])["model"] == "m"
    upstream.reset()
    check_still_serves(server, upstream)


@pytest.mark.parametrize("streaming", [False, True])
def test_an_answer_of_millions_of_values_leaves_memory_bounded(
    server: Server, upstream: Upstream, streaming: bool
) -> None:
    answer = b'{"id":"m","content":[' + b"[]," * (5 * MIB) + b"1]}"
    answer = b"data: " + answer + b"\n\n" if streaming else answer
    upstream.handler = lambda received: (
        event_stream(answer, 60_000) if streaming else [http_response(200, answer)]
    )
    with track_memory_growth(server) as growth:
        status, headers, data = post(server, ASK if streaming else ASK_BLOCKING)
    assert (status, data == answer) == (200, True)
    assert growth[0] < 250
    assert server.record(headers["x-aibridge-interception-id"])["ended_at"]
    upstream.reset()
    check_still_serves(server, upstream)


# Slow clients


def test_slow_clients_delay_no_other_requests(server: Server, upstream: Upstream) -> None:
    """Some stop inside the head, some inside the body, some after it."""
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


FLOODS = [
    (ASK, MESSAGES, True, 200),
    (ASK_BLOCKING, MESSAGES, False, 200),
    (b'{"model":"m","stream":true,"messages":[]}', CHAT, True, 64),
    (BODY, COUNT, False, 100),
]


@pytest.mark.parametrize(("body", "path", "chunked", "size"), FLOODS)
def test_a_slow_reader_stalls_the_upstream_and_memory_stays_bounded(
    server: Server, upstream: Upstream, body: bytes, path: str, chunked: bool, size: int
) -> None:
    check_still_serves(server, upstream)
    before = resident_mib(server)
    flood = start_flood(upstream, chunked, size)
    client = server.connect()
    client.send("POST", path, body)
    _, headers = client.head()
    wait_until(flood.stalls)
    assert flood.sent < 60
    check_memory_returns(server, before, 80)
    check_still_serves(server, upstream)
    data, whole = client.body(headers)
    assert (len(data), whole, flood.sent) == (size * MIB, True, size)
    check_memory_returns(server, before, 120)
    check_still_serves(server, upstream)


# Disconnects


@pytest.mark.parametrize(("body", "path", "chunked", "size"), FLOODS)
def test_disconnect_of_a_slow_reader_closes_the_upstream(
    server: Server, upstream: Upstream, body: bytes, path: str, chunked: bool, size: int
) -> None:
    flood = start_flood(upstream, chunked, size)
    client = server.connect()
    client.send("POST", path, body)
    _, headers = client.head()
    wait_until(flood.stalls)
    client.close()
    wait_until(lambda: upstream.open_connections() == 0)
    if path != COUNT:
        assert server.record(headers["x-aibridge-interception-id"])["error_type"] == "client_closed"
    assert flood.sent < size
    check_still_serves(server, upstream)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"PO",
        b"\r\n",
        b"POST / HTTP/1.1\r\nHost",
        closing_request("Content-Length: 27", method="POST", path=PREFIX + MESSAGES),
        closing_request("Transfer-Encoding: chunked", method="POST", path=PREFIX + MESSAGES, body="5\r\n{"),
    ],
)
@pytest.mark.parametrize("kind", ["close", "half", "reset"])
def test_client_disconnect_before_the_whole_body_leaves_no_record(
    server: Server, upstream: Upstream, sent: bytes, kind: str
) -> None:
    server.wait_until_applied()
    count = server.get("/interceptions?limit=1")["count"]
    client = server.connect()
    client.sock.sendall(sent)
    disconnect(client, kind)
    check_still_serves(server, upstream)
    assert len(upstream.requests) == 1
    server.wait_until_applied()
    assert server.get("/interceptions?limit=1")["count"] == count + 1


def disconnect(client: Client, kind: str) -> None:
    """Closes the connection: at once (`close`), after a half-close (`half`), or with a reset (`reset`)."""
    if kind == "half":
        client.sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            client.stream.read()
    elif kind == "reset":
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()


@pytest.mark.parametrize("kind", ["close", "half", "reset"])
@pytest.mark.parametrize("path", [MESSAGES, COUNT])
@pytest.mark.parametrize(
    "steps", [[], [stream_head()], [stream_head(), chunk(START)], [head(200, "Content-Length: 9"), b"{"]]
)
def test_client_disconnect_closes_the_upstream(
    server: Server, upstream: Upstream, kind: str, path: str, steps: list[bytes]
) -> None:
    upstream.enqueue(*steps, WAIT_FOR_CLOSE)
    client = server.connect()
    client.send("POST", path, ASK)
    upstream.wait_for_requests(1)
    if steps:
        client.head()
    disconnect(client, kind)
    assert upstream.peer_closed.wait(20)
    if path == MESSAGES:
        assert server.record(server.newest()["id"])["error_type"] == "client_closed"
    check_still_serves(server, upstream)


def test_client_disconnect_while_the_body_is_forwarded_closes_the_upstream(
    server: Server, upstream: Upstream
) -> None:
    """The upstream accepts the connection and does not read."""
    accepted, disconnected = threading.Event(), threading.Event()

    def hold(sock: socket.socket) -> None:
        sock.recv(1)
        accepted.set()
        assert disconnected.wait(20)
        with contextlib.suppress(ConnectionError):
            while sock.recv(MIB):
                pass
        upstream.peer_closed.set()

    upstream.takeover = hold
    client = server.connect()
    client.send("POST", MESSAGES, BODY[:-1] + b',"pad":"' + b"x" * (30 * MIB) + b'"}')
    assert accepted.wait(20)
    client.close()
    disconnected.set()
    assert upstream.peer_closed.wait(20)
    assert server.record(server.newest()["id"])["error_type"] == "client_closed"
    upstream.takeover = None
    check_still_serves(server, upstream)


@pytest.fixture(scope="module")
def unresponsive_url() -> Iterator[str]:
    """A URL that accepts no connection: its backlog is full, so connecting never ends."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as stack:
        for _ in range(8):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_client_disconnect_while_connecting_upstream_is_recorded(
    unresponsive_url: str, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    provider = {
        "type": "anthropic",
        "name": "hole",
        "base_url": unresponsive_url,
        "keys": [{"value": CENTRAL}],
    }
    settings = {"providers": [*providers(upstream.url), provider], "connect_timeout": 1.5, "drain_delay": 0}
    server = Server(tmp_path_factory.mktemp("hole"), settings, is_forked=True).wait_ready()
    patient, leaving = server.connect(), server.connect()
    for client in (patient, leaving):
        client.send("POST", "/hole/v1/messages", ASK)
    wait_until(lambda: server.get("/interceptions")["count"] == 2)
    leaving.close()
    assert patient.head()[0] == 504
    wait_until(lambda: all(record["ended_at"] for record in server.get("/interceptions")["results"]))
    types = {record["error_type"] for record in server.get("/interceptions")["results"]}
    assert types == {"client_closed", "timeout"}
    check_still_serves(server, upstream)
    server.disconnect()
    server.stop_cleanly()
