"""A `Host` that names no host is 400 in our own shape, on every route."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import MakeApp, Start
from tests.support.robustness import send_raw
from tests.support.server import PREFIX, Server
from tests.support.upstream import Upstream, http_response

INVALID = [
    "", " ", "a b", "a\tb", "a,b", "a@localhost", "localhost/evil", "localhost?x", "localhost#x", "<b>", "%zz",
    "h\u00e9", "[::1", "[x]", "::1", ":80", "localhost:abc", "localhost:1:2", ".", "a..b",
]  # fmt: skip
VALID = ["localhost", "LOCALHOST:8080", "127.0.0.1:", "[::1]:8080", "localhost.localhost"]
SHAPES = {
    "/anthropic/v1/messages": "anthropic",
    "/anthropic/v1/models": "anthropic",
    "/anthropic/nowhere": "anthropic",
    "/openai/v1/responses": "openai",
    "/copilot/models": "openai",
    "/off/v1/models": "openai",
    "/nobody/v1/models": "records",
    "/interceptions": "records",
    "/healthz": "records",
    "/readyz": "records",
}


def request(path: str, host_line: str, version: str = "1.1") -> bytes:
    lines = [f"GET {path} HTTP/{version}", host_line, "Connection: close"]
    return "\r\n".join([line for line in lines if line] + ["", ""]).encode("latin-1")


@pytest.mark.parametrize("path", ["/", *(PREFIX + path for path in SHAPES)])
@pytest.mark.parametrize("host_line", ["", *(f"Host: {host}" for host in INVALID)])
def test_an_invalid_host_is_400_in_our_shape(
    server: Server, upstream: Upstream, path: str, host_line: str
) -> None:
    status, response = send_raw(server, request(path, host_line))
    assert status == 400
    error = json.loads(response.partition(b"\r\n\r\n")[2])
    shape = SHAPES.get(path.removeprefix(PREFIX), "records")
    if shape == "records":
        assert (error["detail"], error["validations"]) == ("invalid_host", [])
    elif shape == "openai":
        assert error["error"]["code"] == "invalid_host"
    else:
        assert (error["type"], error["error"]["type"]) == ("error", "invalid_request_error")
    assert upstream.requests == []


@pytest.mark.parametrize("host", VALID)
def test_a_valid_host_is_served(server: Server, upstream: Upstream, host: str) -> None:
    upstream.enqueue(http_response(200, b"{}"))
    for path in ("/", f"{PREFIX}/healthz", f"{PREFIX}/interceptions", f"{PREFIX}/anthropic/v1/models"):
        assert send_raw(server, request(path, f"Host: {host}"))[0] == 200


def test_http10_needs_no_host(server: Server) -> None:
    """Load balancers ask so for health."""
    assert send_raw(server, request(f"{PREFIX}/healthz", "", "1.0"))[0] == 200
    status, response = send_raw(server, request("/", "", "1.0"))
    assert (status, f"http://127.0.0.1:{server.port}{PREFIX}/".encode() in response) == (200, True)


@pytest.mark.parametrize(
    "host", ["ai_bridge:8080", "[::1]:8080", "xn--nxasmq6b", "localhost", "AI.example:81"]
)
@pytest.mark.parametrize("script", ["", "/below/a%20path"])
def test_the_index_names_the_urls_that_the_client_uses(make_app: MakeApp, host: str, script: str) -> None:
    client = make_app().test_client()
    environ = {"SCRIPT_NAME": script.replace("%20", " "), "PATH_INFO": "/", "HTTP_HOST": host}
    page = client.get("/", environ_overrides=environ).get_data(as_text=True)
    assert f"ANTHROPIC_BASE_URL=http://{host}{script}{PREFIX}/anthropic\n" in page
    assert f"http://{host}{script}{PREFIX}/healthz\n" in page


@pytest.mark.parametrize("kind", ["gthread", "waitress"])
def test_other_servers_refuse_it_too(start: Start, kind: str, tmp_path: Path) -> None:
    server = start(kind=kind)
    for host_line in ("", "Host: a b", "Host: ."):
        for path in ("/", f"{PREFIX}/healthz", f"{PREFIX}/anthropic/v1/models"):
            assert send_raw(server, request(path, host_line))[0] == 400
