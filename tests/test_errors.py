"""Errors of the bridge itself: status, message, and the shape of the route's API."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.conftest import MakeApp
from tests.support.server import PREFIX, Server, free_port
from tests.support.upstream import WAIT_FOR_CLOSE, Upstream, http_response

MESSAGES, CHAT, RESPONSES = "/anthropic/v1/messages", "/openai/v1/chat/completions", "/openai/v1/responses"
ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
ASK_RESPONSES = {"model": "m", "input": "hi"}
ROUTES = [(MESSAGES, ASK), (CHAT, ASK), (RESPONSES, ASK_RESPONSES)]


@pytest.fixture
def client(shared_app: MakeApp) -> FlaskClient:
    return shared_app(max_body_bytes=1 << 20).test_client()


def post(client: FlaskClient, path: str, body: object, **headers: str) -> TestResponse:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(PREFIX + path, data=data, headers=named, content_type="application/json")


def check(response: TestResponse, path: str, status: int, type: str, code: str, final: bool) -> str:
    """Checks the whole shape; returns the message."""
    assert response.status_code == status
    assert response.mimetype == "application/json"
    assert response.headers.get("x-should-retry") == ("false" if final else None)
    body = response.get_json()
    if path.endswith("/messages") or path.startswith("/anthropic"):
        message = body["error"].pop("message")
        assert body.pop("request_id")
        assert body == {"type": "error", "error": {"type": type}}
    else:
        message = body["error"].pop("message")
        assert body == {"error": {"type": type, "param": None, "code": code}}
    return str(message)


@pytest.mark.parametrize(
    "path", ["/second/v1/messages", "/copilot/chat/completions", "/copilot/responses", "/copilot/v1/messages"]
)
def test_a_missing_credential_is_401_and_names_both_headers(
    client: FlaskClient, upstream: Upstream, path: str
) -> None:
    response = post(client, path, ASK)
    message = check(response, path, 401, "authentication_error", "missing_credential", final=True)
    assert path.split("/")[1] in message
    assert "Authorization" in message
    assert upstream.requests == []


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_users_own_keys_can_be_refused(
    make_app: MakeApp, upstream: Upstream, path: str, body: object
) -> None:
    client = make_app(auth={"byok": "reject"}).test_client()
    response = post(client, path, body, Authorization="Bearer sk-users-own")
    check(response, path, 403, "permission_error", "byok_disabled", final=True)
    assert upstream.requests == []


@pytest.mark.parametrize(
    "path", ["/off", "/off/", "/off/v1/chat/completions", "/off/v1/models", "/off/any/thing"]
)
def test_a_disabled_provider_is_503_everywhere(client: FlaskClient, path: str) -> None:
    message = check(post(client, path, ASK), "/openai", 503, "api_error", "provider_disabled", final=True)
    assert message == 'provider_disabled: AI provider "off" is disabled'


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", MESSAGES),
        ("POST", "/anthropic/v1/complete"),
        ("POST", "/anthropic/v1/messages/"),
        ("POST", "/anthropic/v1/messages/batches"),
        ("PUT", CHAT),
        ("POST", "/openai/chat/completions"),
        ("GET", "/openai/v1/organization/api_keys"),
        ("GET", "/openai/v1/models/"),
        ("OPTIONS", RESPONSES),
        ("GET", "/anthropic/"),
        ("GET", "/anthropic"),
    ],
)
def test_an_unknown_route_is_404(client: FlaskClient, upstream: Upstream, method: str, path: str) -> None:
    response = client.open(PREFIX + path, method=method)
    message = check(response, path, 404, "not_found_error", "route_not_supported", final=True)
    below = "/" + path.lstrip("/").partition("/")[2] if path.count("/") > 1 else ""
    assert message == f"route not supported: {method} {below}"
    assert upstream.requests == []


def test_an_unknown_provider_is_404_in_openais_shape(client: FlaskClient) -> None:
    response = post(client, "/nobody/v1/messages", ASK)
    message = check(response, "/openai", 404, "not_found_error", "provider_not_found", final=True)
    assert message.startswith("provider_not_found")


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_a_large_body_is_413(client: FlaskClient, upstream: Upstream, path: str, body: object) -> None:
    response = post(client, path, b"x" * ((1 << 20) + 1))
    message = check(response, path, 413, "request_too_large", "request_too_large", final=True)
    assert message == "Request body too large. The maximum allowed request body size is 1MiB."
    assert upstream.requests == []


def test_a_chunked_body_is_limited_while_it_is_read(server: Server, upstream: Upstream) -> None:
    client = server.connect()
    head = f"POST {PREFIX}{MESSAGES} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    client.sock.sendall(head.encode())
    piece = b"x" * (1 << 20)
    try:
        for _ in range(40):
            client.sock.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
    except ConnectionError:
        pass  # the response comes before all is sent
    status, headers = client.head()
    assert status == 413
    assert "32MiB" in json.loads(client.body(headers)[0])["error"]["message"]
    assert upstream.requests == []


@pytest.mark.parametrize(("path", "ask"), ROUTES)
@pytest.mark.parametrize(
    "body",
    [b"", b"  ", b"nonsense", b'{"model": ', b"[1]", b'"text"', b"null", b'{"a": NaN}', b'{"a": Infinity}',
     b'{"a": "\xff"}', '{"a": 1}'.encode("utf-16"), b"\xef\xbb\xbf{}", b'{"a": "\x00"}', b"[" * 100_000, b'{"a":' * 100_000],
)  # fmt: skip
def test_a_body_that_is_no_json_object_is_400(
    client: FlaskClient, upstream: Upstream, path: str, ask: object, body: bytes
) -> None:
    response = post(client, path, body)
    check(response, path, 400, "invalid_request_error", "invalid_json", final=False)
    assert response.headers["X-AIBridge-Interception-Id"]
    assert upstream.requests == []


def test_the_message_names_the_position_of_a_json_error(client: FlaskClient) -> None:
    response = post(client, MESSAGES, b'{\n "model": "m",\n "x": }')
    assert "line 3, column 7" in response.get_json()["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"model":"m","messages":"no list"}',
        b'{"model":5,"messages":[{"role":"user","content":"hi"}],"stream":"yes"}',
        b'{"model":"m","messages":[1,null,{"role":7}]}',
        b'{"model":"m","n":' + b"9" * 4000 + b',"messages":[]}',
        b'{"model":"a","model":"m","messages":[{"role":"user","content":"hi\\u0000"}]}',
        b'{"model":"m","deep":' + b"[" * 200 + b"]" * 200 + b"}",
    ],
)
def test_unusual_json_passes_unchanged(client: FlaskClient, upstream: Upstream, body: bytes) -> None:
    upstream.enqueue(http_response(200, b'{"id":"msg_1"}'))
    assert post(client, MESSAGES, body).get_data() == b'{"id":"msg_1"}'
    assert upstream.requests[0].body == body


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_an_unknown_content_coding_is_415(
    client: FlaskClient, upstream: Upstream, path: str, body: object
) -> None:
    response = post(client, path, body, Content_Encoding="compress")
    check(response, path, 415, "invalid_request_error", "unsupported_encoding", final=True)
    assert upstream.requests == []


def test_background_responses_are_501(client: FlaskClient, upstream: Upstream) -> None:
    response = post(client, RESPONSES, {**ASK_RESPONSES, "background": True})
    check(response, RESPONSES, 501, "invalid_request_error", "background_not_supported", final=True)
    assert upstream.requests == []


@pytest.fixture
def unreachable_client(make_app: MakeApp) -> FlaskClient:
    """A client of a bridge whose providers' port does not listen."""
    url = f"http://127.0.0.1:{free_port()}"
    keys = [{"value": "sk-central-0123456789"}]
    return make_app(
        providers=[
            {"type": "anthropic", "base_url": url, "keys": keys},
            {"type": "openai", "base_url": url, "keys": keys},
        ]
    ).test_client()


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_an_unreachable_upstream_is_502(unreachable_client: FlaskClient, path: str, body: object) -> None:
    response = post(unreachable_client, path, body)
    message = check(response, path, 502, "api_error", "upstream_unreachable", final=False)
    assert "127.0.0.1" not in message
    (record,) = unreachable_client.get(f"{PREFIX}/interceptions").get_json()["results"]
    assert record["id"] == response.headers["X-AIBridge-Interception-Id"]
    assert (record["status_code"], record["error_type"]) == (502, "server_error")


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_a_silent_upstream_is_504(make_app: MakeApp, upstream: Upstream, path: str, body: object) -> None:
    client = make_app(read_timeout=0.2).test_client()
    upstream.enqueue(WAIT_FOR_CLOSE)
    check(post(client, path, body), path, 504, "api_error", "upstream_timeout", final=False)
    assert len(upstream.requests) == 1
    (record,) = client.get(f"{PREFIX}/interceptions").get_json()["results"]
    assert (record["status_code"], record["error_type"]) == (504, "timeout")


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_without_a_record_no_request_goes_upstream(
    make_app: MakeApp, upstream: Upstream, path: str, body: object, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    client = make_app(spool_dir=str(tmp_path / "file")).test_client()
    check(post(client, path, body), path, 500, "api_error", "recording_failed", final=False)
    assert upstream.requests == []


@pytest.mark.parametrize("path", [RESPONSES, CHAT, "/copilot/responses", MESSAGES])
def test_a_websocket_is_426(client: FlaskClient, upstream: Upstream, path: str) -> None:
    response = client.get(PREFIX + path, headers={"Upgrade": "websocket", "Connection": "Upgrade"})
    assert response.status_code == 426
    assert response.get_json()["error"]["message"]
    assert upstream.requests == []


def test_a_body_shorter_than_announced_is_not_forwarded(server: Server, upstream: Upstream) -> None:
    client = server.connect()
    client.sock.sendall(
        f"POST {PREFIX}{MESSAGES} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{{}}".encode()
    )
    client.sock.shutdown(socket.SHUT_WR)
    client.stream.read()
    assert upstream.requests == []
