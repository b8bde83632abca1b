"""The targets of requests, and the headers and credentials sent with them."""

from __future__ import annotations

import json

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from aibridge_flask import Actor
from tests.conftest import MakeApp
from tests.support.server import PREFIX, Server
from tests.support.upstream import Upstream, event_stream, http_response

ASK = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
MESSAGES = "/anthropic/v1/messages"


@pytest.fixture
def client(make_app: MakeApp) -> FlaskClient:
    return make_app().test_client()


def ask(
    client: FlaskClient, upstream: Upstream, path: str, method: str = "POST", **headers: str
) -> TestResponse:
    upstream.enqueue(http_response(200, b"{}"))
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = ASK if method == "POST" else None
    response = client.open(PREFIX + path, method=method, data=body, headers=named)
    response.get_data()
    return response


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/anthropic/v1/messages", "/v1/messages"),
        ("/anthropic/v1/messages?beta=true", "/v1/messages?beta=true"),
        ("/second/v1/messages?x=%2F&y=a+b", "/base/v1/messages?x=%2F&y=a+b"),
        ("/openai/v1/chat/completions?x=1", "/v1/chat/completions?x=1"),
        ("/openai/v1/responses", "/v1/responses"),
        ("/copilot/chat/completions", "/chat/completions"),
        ("/copilot/responses", "/responses"),
        ("/copilot/v1/messages", "/v1/messages"),
    ],
)
def test_bridged_paths_are_mapped(client: FlaskClient, upstream: Upstream, path: str, target: str) -> None:
    response = ask(client, upstream, path, Authorization="Bearer own-0123456789")
    assert response.status_code == 200
    assert upstream.requests[0].target == target
    assert response.headers["X-AIBridge-Interception-Id"]


@pytest.mark.parametrize(
    ("method", "path", "target"),
    [
        ("GET", "/anthropic/v1/models?limit=1000", "/v1/models?limit=1000"),
        ("GET", "/anthropic/v1/models/claude-x", "/v1/models/claude-x"),
        ("POST", "/anthropic/v1/messages/count_tokens?beta=true", "/v1/messages/count_tokens?beta=true"),
        ("POST", "/anthropic/api/event_logging/batch", "/api/event_logging/batch"),
        ("GET", "/openai/v1/models", "/v1/models"),
        ("GET", "/openai/v1/models/org%2Fmodel:tag", "/v1/models/org%2Fmodel:tag"),
        ("DELETE", "/openai/v1/models/ft:gpt", "/v1/models/ft:gpt"),
        ("GET", "/openai/v1/responses/resp_1?stream=true", "/v1/responses/resp_1?stream=true"),
        ("POST", "/openai/v1/responses/resp_1/cancel", "/v1/responses/resp_1/cancel"),
        ("POST", "/openai/v1/conversations", "/v1/conversations"),
        ("PATCH", "/openai/v1/conversations/c/items", "/v1/conversations/c/items"),
        ("GET", "/copilot/models", "/models"),
        ("POST", "/copilot/agents/swe/x", "/agents/swe/x"),
        ("POST", "/copilot/mcp/readonly", "/mcp/readonly"),
        ("GET", "/copilot/.well-known/oauth", "/.well-known/oauth"),
    ],
)
def test_listed_routes_pass(
    client: FlaskClient, upstream: Upstream, method: str, path: str, target: str
) -> None:
    response = ask(client, upstream, path, method, Authorization="Bearer own-0123456789")
    assert response.status_code == 200
    assert (upstream.requests[0].method, upstream.requests[0].target) == (method, target)
    assert upstream.requests[0].body == (ASK if method == "POST" else b"")
    assert "X-AIBridge-Interception-Id" not in response.headers
    assert client.get(f"{PREFIX}/interceptions").get_json()["count"] == 0


@pytest.mark.parametrize(
    "path",
    [
        "/anthropic/v1/models/..", "/anthropic/v1/models/../messages/batches", "/anthropic/v1/models/%2e%2e/x",
        "/anthropic/v1/models/a/%2E%2E%2F%2e%2e/files", "/anthropic/v1/models//", "/anthropic/v1//models",
        "/anthropic//v1/models", "/anthropic/v1/models/a;b", "/anthropic/v1/models/a%3bb", "/anthropic/v1/models/a%00",
        "/anthropic/v1/models/a%252e", "/anthropic/v1/models/a%5cb", "/anthropic/v1/models/a\\b", "/anthropic/%761/models",
        "/anthropic/v1%2fmodels", "/anthropic/V1/models", "/anthropic/v1/models/a%0d%0ax", "/anthropic/v1/models/.",
        "/openai/v1/responses/..%2fmodels", "/openai/v1/models%2f", "/openai/v1/files", "/copilot/mcp/./../x",
        "/openai/../anthropic/v1/models", "/openai/v1/modelsx", "/anthropic/v1/models/%ZZ/..",
    ],
)  # fmt: skip
def test_no_other_route_passes(server: Server, upstream: Upstream, path: str) -> None:
    client = server.connect()
    client.send("GET", path, Authorization="Bearer own-0123456789")
    status, headers = client.head()
    assert status == 404, headers
    assert upstream.requests == []


def test_an_absolute_target_counts_as_its_path(server: Server, upstream: Upstream) -> None:
    upstream.enqueue(http_response(200, b"{}"))
    client = server.connect()
    target = f"http://127.0.0.1{PREFIX}/anthropic/v1/models?a=b"
    client.sock.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    assert client.head()[0] == 200
    assert upstream.requests[0].target == "/v1/models?a=b"


def test_the_clients_headers_pass(client: FlaskClient, upstream: Upstream) -> None:
    passing = {
        "Anthropic-Beta": "a-2025,b-2026",
        "Anthropic-Version": "2026-10-21",
        "Anthropic-Unknown": "yes",
        "User-Agent": "claude-cli/2.1.330 (external, cli)",
        "X-Stainless-Lang": "js",
        "Content-Type": "application/json; charset=utf-8",
        "X-Claude-Code-Session-Id": "s-1",
    }
    ask(client, upstream, MESSAGES, **passing)
    for name, value in passing.items():
        assert upstream.requests[0].header(name) == value


def test_headers_for_the_gateway_are_not_passed_on(client: FlaskClient, upstream: Upstream) -> None:
    ask(
        client, upstream, MESSAGES,
        Connection="keep-alive, X-Private", X_Private="1", Keep_Alive="5", TE="trailers", Trailer="x",
        Proxy_Authorization="Basic x", Cookie="a=b", X_AIBridge_Token="aib_secret",
        X_Coder_AI_Governance_Token="aib_secret", X_AI_Bridge_Actor_ID="root",
        X_AI_Bridge_Actor_Metadata_Team="root", Accept_Encoding="br",
    )  # fmt: skip
    assert upstream.requests[0].names() == {
        "host",
        "x-api-key",
        "accept-encoding",
        "content-length",
        "user-agent",
    }
    assert upstream.requests[0].header("Host") == f"127.0.0.1:{upstream.port}"
    assert upstream.requests[0].header("Accept-Encoding") == "identity"


def test_a_passthrough_keeps_accept_encoding(client: FlaskClient, upstream: Upstream) -> None:
    ask(client, upstream, "/anthropic/v1/models", "GET", Accept_Encoding="br, gzip")
    assert upstream.requests[0].header("Accept-Encoding") == "br, gzip"
    assert upstream.requests[0].header("Content-Length") is None


def test_the_upstreams_headers_pass(server: Server, upstream: Upstream) -> None:
    upstream.enqueue(
        http_response(
            429, b'{"error":{"message":"slow down"}}',
            "Retry-After: 7", "request-id: req_9", "X-Two: a", "X-Two: b", "Set-Cookie: s=1", "Server: their", "Date: never",
            "Connection: X-Gone, keep-alive", "X-Gone: 1", "Keep-Alive: 5", "anthropic-ratelimit-requests-remaining: 0",
        )
    )  # fmt: skip
    client = server.connect()
    client.send("POST", MESSAGES, ASK)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += client.stream.readline()
    lines = head.decode().split("\r\n")
    assert lines[0].startswith("HTTP/1.1 429 ")
    for line in (
        "Retry-After: 7",
        "request-id: req_9",
        "X-Two: a",
        "X-Two: b",
        "anthropic-ratelimit-requests-remaining: 0",
    ):
        assert line in lines
    for name in ("Set-Cookie", "X-Gone", "Keep-Alive", "Server: their", "Date: never"):
        assert name not in head.decode()


@pytest.mark.parametrize(
    ("path", "sent", "expected", "kind", "hint"),
    [
        (MESSAGES, {}, {"x-api-key": "sk-ant-central-0123456789"}, "centralized", "sk-a...6789"),
        (MESSAGES, {"x-api-key": "user-key-0123456789xyz"}, {"x-api-key": "user-key-0123456789xyz"}, "byok", "user...9xyz"),
        (MESSAGES, {"authorization": "Bearer user-token"}, {"authorization": "Bearer user-token"}, "byok", "us...en"),
        (MESSAGES, {"x-api-key": "k-1234", "authorization": "Bearer t"}, {"x-api-key": "k-1234"}, "byok", "k...4"),
        (MESSAGES, {"authorization": "Bearer aib_local"}, {"x-api-key": "sk-ant-central-0123456789"}, "centralized", "sk-a...6789"),
        (MESSAGES, {"authorization": "Basic eDp5"}, {"x-api-key": "sk-ant-central-0123456789"}, "centralized", "sk-a...6789"),
        ("/openai/v1/chat/completions", {}, {"authorization": "Bearer sk-oai-central-0123456789"}, "centralized", "sk-o...6789"),
        ("/openai/v1/chat/completions", {"x-api-key": "k"}, {"authorization": "Bearer sk-oai-central-0123456789"}, "centralized", "sk-o...6789"),
        ("/openai/v1/responses", {"authorization": "Bearer own"}, {"authorization": "Bearer own"}, "byok", "..."),
        ("/copilot/chat/completions", {"authorization": "Bearer tid=1;exp=2"}, {"authorization": "Bearer tid=1;exp=2"}, "byok", "ti...=2"),
    ],
)  # fmt: skip
def test_the_credential_is_the_users_or_a_central_one(
    client: FlaskClient,
    upstream: Upstream,
    path: str,
    sent: dict[str, str],
    expected: dict[str, str],
    kind: str,
    hint: str,
) -> None:
    ask(client, upstream, path, **{name.replace("-", "_"): value for name, value in sent.items()})
    received = {name: upstream.requests[0].header(name) for name in ("x-api-key", "authorization")}
    assert {name: value for name, value in received.items() if value} == expected
    (record,) = client.get(f"{PREFIX}/interceptions").get_json()["results"]
    assert (record["credential_kind"], record["credential_hint"]) == (kind, hint)


def test_own_keys_can_be_ignored(make_app: MakeApp, upstream: Upstream) -> None:
    client = make_app(auth={"byok": "ignore"}).test_client()
    ask(client, upstream, MESSAGES, X_Api_Key="users-own")
    assert upstream.requests[0].header("x-api-key") == "sk-ant-central-0123456789"
    ask(client, upstream, "/copilot/responses", Authorization="Bearer users-own")
    assert upstream.requests[1].header("authorization") == "Bearer users-own"


def test_actor_headers_name_the_actor(make_app: MakeApp, upstream: Upstream) -> None:
    app = make_app()
    bridge = app.extensions["aibridge"]
    bridge.actor_loader(lambda request: Actor("ad\u00e9le\r\nX: y", {"team name": "r&d"}))
    ask(app.test_client(), upstream, "/second/v1/messages", X_Api_Key="own", X_AI_Bridge_Actor_ID="spoofed")
    received = upstream.requests[0]
    assert received.header("X-AI-Bridge-Actor-ID") == "ad%C3%A9le%0D%0AX: y"
    assert received.header("X-AI-Bridge-Actor-Metadata-team-name") == "r&d"


@pytest.mark.parametrize(
    ("members", "is_added"),
    [("", True), (',"stream_options":{"x":1}', True), (',"stream_options":{"include_usage":true}', False)],
)
def test_a_chat_streams_usage_is_requested_and_hidden(
    server: Server, upstream: Upstream, members: str, is_added: bool
) -> None:
    chunk = b'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"\\"usage\\""}}],"usage":null}\n\n'
    usage = b'data: {"id":"c1","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\n'
    done = b"data: [DONE]\n\n"
    upstream.enqueue(*event_stream(chunk + usage + done, 11))
    body = b'{ "stream" : true, "temperature":1e5,"big":12345678901234567890%s }' % members.encode()
    client = server.connect()
    client.send("POST", "/openai/v1/chat/completions", body)
    _, headers = client.head()
    received, whole = client.body(headers)
    assert whole
    assert received == (chunk + done if is_added else chunk + usage + done)
    sent_body = upstream.requests[0].body
    assert json.loads(sent_body)["stream_options"]["include_usage"] is True
    assert b"1e5" in sent_body
    assert (sent_body != body) is is_added
    record = server.record(headers["x-aibridge-interception-id"])
    assert (record["token_usages"][0]["input_tokens"], record["token_usages"][0]["output_tokens"]) == (5, 2)
    assert record["wire_exact"] is not is_added


def test_a_head_response_has_headers_and_no_body(server: Server, upstream: Upstream) -> None:
    upstream.enqueue(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1234\r\n\r\n")
    upstream.enqueue(http_response(200, b"{}"))
    client = server.connect()
    client.send("HEAD", "/anthropic/v1/models")
    status, headers = client.head()
    assert (status, headers["content-length"]) == (200, "1234")
    client.send("GET", "/anthropic/v1/models")
    assert client.body(client.head()[1]) == (b"{}", True)
    assert upstream.connections == 1
