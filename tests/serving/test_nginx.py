"""Behind nginx: with the configuration of `deploy/`, with a minimal one, and below a path."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Start, providers
from tests.support.dialogue import ASK, ASK_BLOCKING, BLOCK, DELTA, END, MESSAGES, PING, START
from tests.support.nginx import ANN, Nginx, deployment_config
from tests.support.server import KEEPALIVE_SECONDS, PREFIX, TIMEOUT_SECONDS, Client, Server
from tests.support.upstream import (
    CLOSE,
    LAST_CHUNK,
    RESET,
    WAIT_FOR_CLOSE,
    Upstream,
    chunk,
    head,
    http_response,
    stream_head,
)

LIMIT = 1 << 20
ID = "x-aibridge-interception-id"
MakeNginx = Callable[[str], Nginx]


@pytest.fixture
def make_nginx(tmp_path: Path) -> Iterator[MakeNginx]:
    servers: list[Nginx] = []

    def make(site: str) -> Nginx:
        folder = tmp_path / f"nginx{len(servers)}"
        folder.mkdir()
        servers.append(Nginx(folder, site))
        return servers[-1]

    yield make
    for nginx in servers:
        nginx.stop()


@pytest.fixture(scope="module")
def shared_bridge(shared_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A bridge that trusts nginx to name the user."""
    settings = {
        "auth": {"mode": "header", "trusted_proxies": ["127.0.0.1/32"], "admin_actors": ["root"]},
        "providers": providers(shared_upstream.url),
        "keepalive_interval": KEEPALIVE_SECONDS,
        "max_body_bytes": LIMIT,
        "drain_delay": 0,
    }
    server = Server(tmp_path_factory.mktemp("bridge"), settings, is_forked=True)
    server.headers = {"X-Remote-User": "root"}
    yield server.wait_ready()
    server.stop_cleanly()


@pytest.fixture(scope="module")
def shared_nginx(shared_bridge: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    folder = tmp_path_factory.mktemp("nginx")
    nginx = Nginx(folder, deployment_config(folder, shared_bridge.port))
    yield nginx
    nginx.stop()


@pytest.fixture
def bridge(shared_bridge: Server) -> Server:
    return shared_bridge


@pytest.fixture
def nginx(shared_nginx: Nginx, upstream: Upstream) -> Iterator[Nginx]:
    yield shared_nginx
    shared_nginx.disconnect()


def check_each_event_comes_at_once(client: Client, upstream: Upstream, **headers: str) -> None:
    """The upstream writes the next event only when the client has read the one before."""
    events = (START, BLOCK, DELTA, END)
    gates = [threading.Event() for _ in events]
    steps = [step for gate, event in zip(gates, events, strict=True) for step in (gate, chunk(event))]
    upstream.enqueue(stream_head(), *steps, LAST_CHUNK)
    client.send("POST", MESSAGES, ASK, **headers)
    assert client.head()[0] == 200
    for gate, event in zip(gates, events, strict=True):
        gate.set()
        while (piece := client.chunk()) == PING:
            pass
        assert piece == event
    assert client.chunk() == b""


def test_each_event_and_each_ping_comes_at_once(nginx: Nginx, upstream: Upstream) -> None:
    client = nginx.connect()
    check_each_event_comes_at_once(client, upstream, **ANN)
    go = threading.Event()
    upstream.enqueue(stream_head(), go, chunk(END), LAST_CHUNK)
    client.send("POST", MESSAGES, ASK, **ANN)
    client.head()
    assert [client.chunk(), client.chunk()] == [PING, PING]
    go.set()
    rest, whole = client.chunks()
    assert (rest.replace(PING, b""), whole) == (END, True)


def test_bytes_and_targets_pass_as_they_are(nginx: Nginx, upstream: Upstream) -> None:
    client = nginx.connect()
    for path in ("/v1/messages?beta=true&x=%2F", "/v1/models/a%2Fb"):
        upstream.enqueue(http_response(200, b'{"a": 1.0}\n', "request-id: req_7"))
        client.send("POST", "/anthropic" + path, ASK_BLOCKING + b"\n ", **ANN)
        status, headers = client.head()
        assert (status, headers["request-id"]) == (200, "req_7")
        assert client.body(headers) == (b'{"a": 1.0}\n', True)
        assert (upstream.requests[-1].target, upstream.requests[-1].body) == (path, ASK_BLOCKING + b"\n ")
    assert upstream.requests[0].header("x-api-key") == "sk-ant-central-0123456789"
    assert not upstream.requests[0].names() & {"authorization", "x-remote-user", "x-forwarded-for"}


def test_nginx_authenticates_the_user(nginx: Nginx, bridge: Server, upstream: Upstream) -> None:
    upstream.enqueue(http_response(200, b"{}"))
    client = nginx.connect()
    client.send("POST", MESSAGES, ASK_BLOCKING, **ANN)
    _, headers = client.head()
    assert client.body(headers) == (b"{}", True)
    assert bridge.record(headers[ID])["initiator_id"] == "ann"
    stranger = nginx.connect()
    stranger.send("POST", MESSAGES, ASK_BLOCKING, X_Remote_User="ann")
    assert stranger.head()[0] == 401
    metrics = nginx.connect()
    metrics.send("GET", "/metrics", **ANN)
    assert metrics.head()[0] == 403
    assert len(upstream.requests) == 1


PARTIAL_ANSWERS = {
    "before the head": (),
    "inside a JSON answer": (head(200, "Content-Length: 100"), b'{"id":'),
    "inside an event": (stream_head(), chunk(START + BLOCK[:20])),
}


@pytest.mark.parametrize("steps", PARTIAL_ANSWERS.values(), ids=PARTIAL_ANSWERS)
def test_client_disconnect_closes_the_upstream(
    nginx: Nginx, bridge: Server, upstream: Upstream, steps: tuple[bytes, ...]
) -> None:
    upstream.enqueue(*steps, WAIT_FOR_CLOSE)
    client = nginx.connect()
    client.send("POST", MESSAGES, ASK, **ANN)
    upstream.wait_for_requests(1)
    if steps:
        client.head()
        client.stream.read(1)
    client.close()
    assert upstream.peer_closed.wait(TIMEOUT_SECONDS)
    record = bridge.record(bridge.newest()["id"])
    assert record["error_type"] == "client_closed"


@pytest.mark.parametrize("cut", [CLOSE, RESET])
def test_a_cut_stays_cut(nginx: Nginx, upstream: Upstream, cut: object) -> None:
    go = threading.Event()
    upstream.enqueue(stream_head(), chunk(START + BLOCK), go, cut)
    client = nginx.connect()
    client.send("POST", MESSAGES, ASK, **ANN)
    client.head()
    assert client.chunk() == START + BLOCK
    go.set()
    event, whole = client.chunks()
    assert not whole
    assert event.replace(PING, b"").startswith(b"event: error\n")
    upstream.enqueue(head(200, "Content-Length: 100"), b'{"id":', cut)
    short = nginx.connect()
    short.send("POST", MESSAGES, ASK_BLOCKING, **ANN)
    assert short.body(short.head()[1])[1] is False


def test_a_connection_serves_many_requests(nginx: Nginx, upstream: Upstream) -> None:
    client = nginx.connect()
    for _ in range(5):
        upstream.enqueue(stream_head(), chunk(START + END), LAST_CHUNK)
        upstream.enqueue(http_response(529, b"{}"))
        client.send("POST", MESSAGES, ASK, **ANN)
        assert client.body(client.head()[1]) == (START + END, True)
        client.send("POST", MESSAGES, ASK_BLOCKING, **ANN)
        status, headers = client.head()
        assert (status, client.body(headers)) == (529, (b"{}", True))


def test_nginx_reuses_its_connections_to_the_bridge(
    make_nginx: MakeNginx, upstream: Upstream, tmp_path: Path
) -> None:
    """The scripted upstream takes the place of the bridge."""
    nginx = make_nginx(deployment_config(tmp_path, upstream.port))
    for _ in range(3):
        upstream.enqueue(http_response(200, b"{}"))
        client = nginx.connect()
        client.send("POST", MESSAGES, ASK_BLOCKING, **ANN)
        assert client.body(client.head()[1]) == (b"{}", True)
    assert upstream.connections == 1
    received = upstream.requests[-1]
    assert (received.header("x-remote-user"), received.header("x-forwarded-for")) == ("ann", "127.0.0.1")
    assert received.target == PREFIX + MESSAGES


def test_a_large_body_gets_the_bridges_answer(nginx: Nginx, upstream: Upstream) -> None:
    client = nginx.connect()
    with contextlib.suppress(ConnectionError):  # the response comes before all is sent
        client.send("POST", MESSAGES, b"x" * (LIMIT + 1), **ANN)
    status, headers = client.head()
    assert status == 413
    assert json.loads(client.body(headers)[0])["error"]["type"] == "request_too_large"
    assert upstream.requests == []


@pytest.mark.parametrize(
    "path",
    [
        "/anthropic/v1/models/../../../openai/v1/organization",
        "/anthropic/v1/models/%2e%2e/organizations",
        "/anthropic//v1/messages",
        "/anthropic/v1/%6dessages",
        "/anthropic/v1/messages%2F",
    ],
)
def test_no_trick_with_a_path_reaches_the_upstream(nginx: Nginx, upstream: Upstream, path: str) -> None:
    client = nginx.connect()
    client.send("POST", path, ASK_BLOCKING, **ANN)
    assert client.head()[0] == 404
    assert upstream.requests == []


MINIMAL_SITE = "server {{ listen 127.0.0.1:{{port}}; location {location} {{ proxy_pass http://127.0.0.1:{port}{path}; {directives} }} }}"


@pytest.mark.parametrize("kind", ["gevent", "gthread", "sync"])
def test_a_cut_stays_cut_behind_default_nginx_with_http_1_0(
    start: Start, make_nginx: MakeNginx, upstream: Upstream, kind: str
) -> None:
    server = start(kind=kind)
    nginx = make_nginx(MINIMAL_SITE.format(location="/", port=server.port, path="", directives=""))
    check_each_event_comes_at_once(nginx.connect(), upstream)
    go = threading.Event()
    upstream.enqueue(stream_head(), chunk(START + BLOCK[:20]), go, CLOSE)
    client = nginx.connect()
    client.send("POST", MESSAGES, ASK)
    client.head()
    assert client.chunk() == START + BLOCK[:20]
    go.set()
    assert client.chunks() == (b"", False)


@pytest.mark.parametrize(
    ("environ", "path", "directives"),
    [
        ({"SCRIPT_NAME": "/below"}, "", ""),
        ({}, "/", "proxy_set_header X-Forwarded-Prefix /below;"),
    ],
)
def test_the_bridge_can_be_served_below_a_path(
    start: Start,
    make_nginx: MakeNginx,
    upstream: Upstream,
    environ: dict[str, str],
    path: str,
    directives: str,
) -> None:
    """gunicorn gets the prefix as SCRIPT_NAME, or nginx strips it from the path."""
    prefix = f"/below{PREFIX}" if environ else PREFIX
    auth = {"mode": "header"}
    server = start(environ=environ, prefix=prefix, auth=auth)
    directives += " proxy_set_header X-Remote-User ann;"
    nginx = make_nginx(
        MINIMAL_SITE.format(location="/below/", port=server.port, path=path, directives=directives)
    )
    client = nginx.connect(f"/below{PREFIX}")
    check_each_event_comes_at_once(client, upstream)
    client.send("GET", "/anthropic/v1/nowhere")
    body, _ = client.body(client.head()[1])
    assert json.loads(body)["error"]["message"] == "route not supported: GET /v1/nowhere"
