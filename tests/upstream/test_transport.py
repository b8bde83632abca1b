"""HTTPS, CA bundles and proxies towards an upstream, and mocking with `responses`."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
import responses
import trustme
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.conftest import MakeApp
from tests.support.server import PREFIX
from tests.support.upstream import Upstream, event_stream, http_response

MESSAGES = f"{PREFIX}/anthropic/v1/messages"
ASK = b'{"model":"m","messages":[]}'


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls_upstream(authority: trustme.CA) -> Iterator[Upstream]:
    """The scripted upstream behind TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    upstream = Upstream(context)
    yield upstream
    upstream.close()


@pytest.fixture
def bundle(authority: trustme.CA, tmp_path: Path) -> str:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")


def settings(url: str, **options: object) -> dict[str, object]:
    provider = {"type": "anthropic", "base_url": url, "keys": [{"value": "sk-central-0123456789"}]}
    return {"providers": [{**provider, **options}]}


def ask(client: FlaskClient) -> TestResponse:
    return client.post(MESSAGES, data=ASK, buffered=True)


def test_https_needs_the_upstreams_certificate_authority(
    make_app: MakeApp, tls_upstream: Upstream, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    assert ask(make_app(**settings(tls_upstream.url)).test_client()).status_code == 502
    assert tls_upstream.requests == []
    for _ in range(2):
        tls_upstream.enqueue(http_response(200, b"{}"))
    client = make_app(**settings(tls_upstream.url, ca_file=bundle)).test_client()
    assert [ask(client).get_data() for _ in range(2)] == [b"{}", b"{}"]
    assert len({received.header("host") for received in tls_upstream.requests}) == 1


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_the_environments_ca_bundle_is_used(
    make_app: MakeApp, tls_upstream: Upstream, bundle: str, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv(variable, bundle)
    tls_upstream.enqueue(*event_stream(b"data: 1\n\n", 3))
    assert ask(make_app(**settings(tls_upstream.url)).test_client()).get_data() == b"data: 1\n\n"


def test_plain_http_through_a_proxy_sends_the_absolute_url(make_app: MakeApp, upstream: Upstream) -> None:
    upstream.enqueue(http_response(200, b"{}"))
    client = make_app(**settings("http://provider.test/base", proxy=upstream.url)).test_client()
    assert ask(client).status_code == 200
    assert upstream.requests[0].target == "http://provider.test/base/v1/messages"
    assert upstream.requests[0].header("Host") == "provider.test"


def test_a_plain_proxy_gets_its_credentials(make_app: MakeApp, upstream: Upstream) -> None:
    proxy = upstream.url.replace("http://", "http://user:pass%20word@")
    upstream.enqueue(http_response(200, b"{}"))
    assert ask(make_app(**settings("http://provider.test", proxy=proxy)).test_client()).status_code == 200
    assert (
        upstream.requests[0].header("proxy-authorization") == "Basic " + b64encode(b"user:pass word").decode()
    )
    assert upstream.requests[0].target == "http://provider.test/v1/messages"


def test_the_environments_proxy_and_no_proxy_are_used(
    make_app: MakeApp, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", upstream.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    upstream.enqueue(http_response(200, b"{}"))
    upstream.enqueue(http_response(200, b"{}"))
    ask(make_app(**settings("http://provider.test")).test_client())
    ask(make_app(**settings(upstream.url)).test_client())
    assert [received.target for received in upstream.requests] == [
        "http://provider.test/v1/messages",
        "/v1/messages",
    ]


class Tunnel:
    """A proxy that supports CONNECT only."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.request_lines: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        self.request_lines.append(head.split(b"\r\n")[0].decode())
        host, port = head.split()[1].decode().split(":")
        target = socket.create_connection((host, int(port)))
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        for source, sink in ((client, target), (target, client)):
            threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError), source:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def tunnel() -> Iterator[Tunnel]:
    proxy = Tunnel()
    yield proxy
    proxy.close()


def test_https_through_a_proxy_goes_through_a_tunnel(
    make_app: MakeApp, tls_upstream: Upstream, bundle: str, tunnel: Tunnel
) -> None:
    for _ in range(2):
        tls_upstream.enqueue(http_response(200, b'{"tunnelled":1}'))
    client = make_app(**settings(tls_upstream.url, ca_file=bundle, proxy=tunnel.url)).test_client()
    assert [ask(client).get_data() for _ in range(2)] == [b'{"tunnelled":1}'] * 2
    assert [line.rsplit(" ", 1)[0] for line in tunnel.request_lines] == [
        f"CONNECT 127.0.0.1:{tls_upstream.port}"
    ]
    assert tls_upstream.requests[0].target == "/v1/messages"


def test_an_unreachable_proxy_is_a_502(make_app: MakeApp) -> None:
    client = make_app(**settings("https://provider.test", proxy="http://127.0.0.1:9")).test_client()
    assert ask(client).status_code == 502


def test_redirects_and_cookies_are_not_followed(make_app: MakeApp, upstream: Upstream) -> None:
    upstream.enqueue(
        http_response(307, b"", f"Location: {upstream.url}/elsewhere", "Set-Cookie: a=b; Path=/")
    )
    upstream.enqueue(http_response(200, b"{}"))
    client = make_app().test_client()
    moved = ask(client)
    assert (moved.status_code, moved.headers["Location"]) == (307, f"{upstream.url}/elsewhere")
    assert "Set-Cookie" not in moved.headers
    ask(client)
    assert [received.header("Cookie") for received in upstream.requests] == [None, None]


def test_a_netrc_cannot_replace_the_credential(
    make_app: MakeApp, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("default login thief password thief")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    upstream.enqueue(http_response(200, b"{}"))
    ask(make_app().test_client())
    assert upstream.requests[0].header("authorization") is None
    assert upstream.requests[0].header("x-api-key") == "sk-ant-central-0123456789"


def test_responses_can_be_mocked_with_the_responses_library(make_app: MakeApp) -> None:
    client = make_app(**settings("https://provider.test")).test_client()
    target = "aibridge_flask.upstream.wire.WireAdapter.send"
    with responses.RequestsMock(target=target) as mock:
        mock.post("https://provider.test/v1/messages", body=b'{"faked":1}', headers={"request-id": "req_1"})
        mock.get("https://provider.test/v1/models", status=404, body=b"none")
        faked = ask(client)
        assert (faked.get_data(), faked.headers["request-id"]) == (b'{"faked":1}', "req_1")
        passed = client.get(f"{PREFIX}/anthropic/v1/models", buffered=True)
        assert (passed.status_code, passed.get_data()) == (404, b"none")
        assert mock.calls[0].request.headers["X-Api-Key"] == "sk-central-0123456789"


def test_a_stale_pooled_connection_is_not_reused(
    make_app: MakeApp, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr("aibridge_flask.upstream.idle.monotonic", lambda: clock[0])
    client = make_app().test_client()
    for elapsed, connections in ((0, 1), (29, 1), (31, 2)):
        clock[0] += elapsed
        upstream.enqueue(http_response(200, b"{}"))
        assert ask(client).status_code == 200
        assert upstream.connections == connections
