"""No secret appears in any answer, log line, record, process list, `repr` or traceback."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import re
import socket
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from aibridge_flask import Actor, ConfigError, config, create_app
from aibridge_flask.cli import aibridge
from aibridge_flask.hooks import Hooks
from aibridge_flask.model import ClientRequest
from aibridge_flask.outbound import Outbound
from aibridge_flask.records import recorder
from aibridge_flask.records.stored_objects import StoredObjects
from aibridge_flask.upstream.shared_state import SharedState
from tests.conftest import MakeApp
from tests.support.dialogue import ASK, ASK_BLOCKING, END, START
from tests.support.postgres import Postgres
from tests.support.server import PREFIX, Server, check_log, free_port, wait_until
from tests.support.upstream import (
    CLOSE,
    RESET,
    WAIT_FOR_CLOSE,
    Upstream,
    chunk,
    event_stream,
    head,
    http_response,
    stream_head,
)


def canary(number: int) -> str:
    return f"cnry{number:02}-Tr0ub4dor-{number * 7919:06}-f1nch-end{number:02}"


VALUE, FILE, ENV, OWN, PROXY, DATABASE, REDIS, TOOLS, AWS, WRONG = map(canary, range(10))
SECOND = canary(10)
CONFIGURED = (VALUE, FILE, ENV, PROXY, DATABASE, REDIS, TOOLS, AWS, SECOND)


def searched_forms(*secrets: str) -> list[bytes]:
    """Each secret, its part that no hint contains, and its form in a proxy's credentials."""
    forms = []
    for secret in secrets:
        forms += [secret.encode(), secret[6:-6].encode()]
        forms.append(base64.b64encode(f"user:{secret}".encode())[8:-8])
    return forms


def contains(text: bytes | str, *secrets: str) -> bool:
    data = text if isinstance(text, bytes) else text.encode()
    return any(form in data for form in searched_forms(*secrets))


def settings(upstream_url: str, key_file: Path) -> dict[str, Any]:
    """Settings with a secret everywhere one is allowed."""
    unreachable = f"http://127.0.0.1:{free_port()}"
    key = {"value": VALUE}
    return {
        "auth": {"mode": "token"},
        "read_timeout": 0.5,
        "redis_url": f"redis://user:{REDIS}@127.0.0.1:1/0",
        "providers": [
            {"type": "anthropic", "base_url": upstream_url, "keys": [key, {"value": SECOND}]},
            {"type": "openai", "base_url": f"{upstream_url}/v1", "keys": [{"file": str(key_file)}]},
            {"type": "anthropic", "name": "by-env", "base_url": upstream_url, "keys": [{"env": "SECRET_OF_TEST"}]},
            {"type": "copilot", "base_url": upstream_url},
            {"type": "anthropic", "name": "one-key", "base_url": upstream_url, "keys": [key]},
            {"type": "anthropic", "name": "away", "base_url": unreachable, "keys": [key]},
            {"type": "anthropic", "name": "tls", "base_url": unreachable.replace("http", "https"), "keys": [key]},
            {"type": "anthropic", "name": "proxied", "base_url": "http://provider.test", "keys": [key], "proxy": f"http://user:{PROXY}@{upstream_url[7:]}"},
            {"type": "anthropic", "name": "tunnelled", "base_url": "https://provider.test", "keys": [key], "proxy": f"http://user:{PROXY}@{upstream_url[7:]}"},
            {"type": "anthropic", "name": "proxy-away", "base_url": "https://provider.test", "keys": [key], "proxy": f"http://user:{PROXY}@{unreachable[7:]}"},
            {"type": "openai", "name": "off", "enabled": False, "base_url": upstream_url, "keys": [key]},
        ],
        "mcp_servers": [{"name": "docs", "url": unreachable, "headers": {"Authorization": {"value": TOOLS}}}],
    }  # fmt: skip


LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(name)s %(levelname)s %(message)s"}},
    "handlers": {"all": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"level": "DEBUG", "handlers": ["all"]},
    "loggers": {
        "sqlalchemy": {"level": "DEBUG"},
        "gunicorn.error": {"level": "DEBUG", "handlers": ["all"], "propagate": False},
        "gunicorn.access": {"level": "DEBUG", "handlers": ["all"], "propagate": False},
    },
}


class VerboseServer:
    """A server at its most verbose log level, and all its answers."""

    def __init__(self, folder: Path, upstream: Upstream, database_url: str) -> None:
        (folder / "key").write_text(FILE + "\n")
        (folder / "logging.json").write_text(json.dumps(LOGGING))
        tree = {
            **settings(upstream.url, folder / "key"),
            "database_url": database_url,
            "spool_dir": str(folder / "spool"),
            "drain_delay": 0,
        }
        options = (
            "--log-level",
            "debug",
            "--log-config-json",
            str(folder / "logging.json"),
            "--access-logfile",
            "-",
        )
        self.folder = folder
        self.server = Server(folder, tree, *options, is_forked=True).wait_ready()
        self.tokens = [self._token(), self._token("--admin")]
        self.answers: list[bytes] = []

    def _token(self, *options: str) -> str:
        result = CliRunner().invoke(aibridge, ["token", "create", "--user", "alice", *options])
        return result.stdout.strip()

    def send(self, *lines: str, method: str = "POST", path: str, body: bytes = ASK_BLOCKING) -> bytes:
        """Sends a request; returns all bytes of the answer."""
        framing = [f"Content-Length: {len(body)}"] if method == "POST" else []
        lines_to_send = [
            f"{method} {PREFIX}{path} HTTP/1.1",
            "Host: localhost",
            "Connection: close",
            *lines,
            *framing,
            "",
            "",
        ]
        client = self.server.connect()
        client.sock.sendall("\r\n".join(lines_to_send).encode("latin-1") + (body if framing else b""))
        answer = b""
        with contextlib.suppress(ConnectionError):
            while piece := client.sock.recv(65536):
                answer += piece
        client.close()
        self.answers.append(answer)
        return answer

    def ask(self, *lines: str, path: str = "/anthropic/v1/messages", **options: Any) -> bytes:
        return self.send(f"X-AIBridge-Token: {self.tokens[0]}", *lines, path=path, **options)

    def secrets(self) -> tuple[str, ...]:
        return (*CONFIGURED, OWN, WRONG, *self.tokens)

    def files(self) -> Iterator[bytes]:
        """Yields the contents of all files that the server wrote, without its configuration."""
        for path in self.folder.rglob("*"):
            if path.is_file() and path.name not in ("key", "aibridge.toml"):
                yield path.read_bytes()


@pytest.fixture(scope="module")
def environment() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET_OF_TEST", ENV)
        yield patch


@pytest.fixture(scope="module")
def verbose_server(
    shared_upstream: Upstream, environment: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VerboseServer]:
    folder = tmp_path_factory.mktemp("talkative")
    url = f"sqlite:///{folder}/records.db"
    environment.setenv("AIBRIDGE_DATABASE_URL", url)
    server = VerboseServer(folder, shared_upstream, url)
    environment.delenv("AIBRIDGE_DATABASE_URL")
    yield server
    server.server.disconnect()
    server.server.process.kill()
    server.server.process.wait()


def refusal(status: int) -> bytes:
    return http_response(
        status,
        b'{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key: cnry...00"}}',
    )


def make_all_requests(server: VerboseServer, upstream: Upstream) -> None:
    """Makes every kind of request, successful and failing."""
    paths = [
        "/anthropic/v1/messages",
        "/by-env/v1/messages",
        "/openai/v1/chat/completions",
        "/openai/v1/responses",
    ]
    for path in paths:
        for steps in (
            [http_response(200, b'{"id":"x"}')],
            [refusal(401)],
            [refusal(403)],
            [refusal(429)],
            [refusal(500)],
            [b"junk"],
            [CLOSE],
            [RESET],
            [WAIT_FOR_CLOSE],
        ):
            upstream.enqueue(*steps)
            server.ask(path=path)
        for steps in (
            event_stream(START + END),
            [stream_head(), chunk(START), CLOSE],
            [head(200, "Content-Length: 9"), b"{", RESET],
            [stream_head(), WAIT_FOR_CLOSE],
        ):
            upstream.enqueue(*steps)
            server.ask(path=path, body=ASK)
    for line in (
        f"X-Api-Key: {OWN}",
        f"Authorization: Bearer {OWN}",
        f"Authorization: Bearer {OWN}, {OWN}",
        f"Authorization: Basic {OWN}",
    ):
        for path in (*paths, "/copilot/chat/completions"):
            upstream.enqueue(refusal(401))
            server.ask(line, path=path)
    for path in (
        "/away/v1/messages",
        "/tls/v1/messages",
        "/proxy-away/v1/messages",
        "/tunnelled/v1/messages",
        "/proxied/v1/messages",
        "/off/v1/responses",
        "/nobody/v1/x",
    ):
        upstream.reset()
        upstream.enqueue(refusal(407))
        server.ask(path=path)
    for token in (*server.tokens, f"aib_{WRONG}", WRONG):
        for line in (
            f"X-AIBridge-Token: {token}",
            f"X-Coder-AI-Governance-Token: {token}",
            f"X-Api-Key: {token}",
            f"Authorization: Bearer {token}",
            f"X-AIBridge-Token: {token}\r\nX-AIBridge-Token: {token}",
        ):
            upstream.enqueue(http_response(200, b"{}"))
            server.send(line, path="/anthropic/v1/messages")
            upstream.reset()
            server.send(line, method="GET", path="/interceptions?q=nonsense:1")
    for path in (f"/anthropic/v1/models/{server.tokens[0]}", f"/anthropic/v1/models?key={server.tokens[0]}"):
        assert b" 400 " in server.ask(method="GET", path=path)
    for path in ("/{}/v1/messages", "/{}", "/interceptions/{}", "/usage?format={}", "/interceptions?q={}:1"):
        server.ask(method="GET", path=path.format(server.tokens[0]))
    for body in (b"", b"[", b"\xff", b"{}" * 9):
        server.ask(f"X-Api-Key: {OWN}", body=body)
    server.ask("X-Bad: a\0b", f"X-Api-Key: {OWN}")
    server.ask("Content-Encoding: nonsense", f"X-Api-Key: {OWN}")


def test_a_verbose_server_shows_no_secret(verbose_server: VerboseServer, upstream: Upstream) -> None:
    """Checks answers, the most verbose log, records, files and command lines."""
    make_all_requests(verbose_server, upstream)
    with contextlib.closing(
        sqlite3.connect(verbose_server.folder / "records.db", isolation_level=None)
    ) as lock:
        lock.execute("BEGIN IMMEDIATE")
        upstream.enqueue(http_response(200, b'{"id":"spooled"}'))
        assert b"spooled" in verbose_server.ask(f"X-Api-Key: {OWN}")
        assert any(
            b"spooled" in path.read_bytes() for path in (verbose_server.folder / "spool").rglob("*.log")
        )
        assert not any(contains(file, *verbose_server.secrets()) for file in verbose_server.files())
        lock.execute("ROLLBACK")
    listing = verbose_server.send(
        f"X-Api-Key: {verbose_server.tokens[1]}", method="GET", path="/interceptions?limit=1000"
    )
    assert json.loads(listing.partition(b"\r\n\r\n")[2])["count"] > 60
    assert listing.count(b'"cnry...nd03"') > 3  # the hints
    assert not any(contains(answer, *verbose_server.secrets()) for answer in verbose_server.answers)
    assert not any(contains(file, *verbose_server.secrets()) for file in verbose_server.files())
    log = verbose_server.server.log.read_text()
    assert "urllib3" in log
    assert "sqlalchemy" in log
    check_log(log)
    for pid in (verbose_server.server.process.pid, *verbose_server.server.workers()):
        assert not contains(Path(f"/proc/{pid}/cmdline").read_bytes(), *verbose_server.secrets())
    assert not any(path.stat().st_mode & 0o77 for path in Path(tempfile.gettempdir()).glob("aibridge-*.json"))


def test_each_upstream_gets_its_own_secret_only(verbose_server: VerboseServer, upstream: Upstream) -> None:
    """The secrets are in use: each provider gets its own."""
    for path, secret in (
        ("/one-key/v1/messages", VALUE),
        ("/by-env/v1/messages", ENV),
        ("/openai/v1/responses", FILE),
    ):
        upstream.enqueue(http_response(200, b"{}"))
        verbose_server.ask(path=path)
        received = upstream.requests[-1]
        assert secret in (
            received.header("x-api-key"),
            str(received.header("authorization")).removeprefix("Bearer "),
        )
        assert not contains(str(received), *(other for other in verbose_server.secrets() if other != secret))


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["X-AIBridge-Token: {0}", "X-AIBridge-Token: {0}"], 401), (["X-AIBridge-Token: {0}", "X-AIBridge-Token: {1}"], 401), (["Authorization: Bearer {0}", "Authorization: Bearer {1}"], 401),
        (["Authorization: Bearer own", "Authorization: Bearer {0}"], 401), (["X-Api-Key: {0}", "X-Api-Key: own"], 401), (["X-AIBridge-Token: {0}", "Authorization: Bearer own, {1}"], 401),
        (["X-AIBridge-Token: {0}", "Authorization: Bearer {1}", "X-Api-Key: {1}"], 200), (["X-AIBridge-Token: {0}", "X-Coder-AI-Governance-Token: {1}"], 200), (["X_AIBridge_Token: {0}"], 401),
    ],
)  # fmt: skip
def test_repeated_tokens_are_never_forwarded(
    verbose_server: VerboseServer, upstream: Upstream, lines: list[str], status: int
) -> None:
    upstream.enqueue(http_response(200, b"{}"))
    answer = verbose_server.send(
        *(line.format(*verbose_server.tokens) for line in lines), path="/one-key/v1/messages"
    )
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert len(upstream.requests) == (status == 200)
    assert not contains(str(upstream.requests), *verbose_server.tokens)


@pytest.mark.parametrize("dress", ["{}", "claude-cli/1 Bearer {}", "Basic"])
def test_a_token_in_a_header_that_is_recorded_is_left_out(
    verbose_server: VerboseServer, upstream: Upstream, dress: str
) -> None:
    token = verbose_server.tokens[0]
    value = dress.format(token)
    if dress == "Basic":
        value = f"claude-cli/1 Basic {base64.b64encode(f'user:{token}'.encode()).decode()}"
    upstream.enqueue(http_response(200, b"{}"))
    ids = (f"X-Claude-Code-{name}-Id: {value}" for name in ("Session", "Agent", "Parent-Agent"))
    lines = (f"User-Agent: {value}", *ids, f"Tracestate: a={value}")
    answer = verbose_server.ask(*lines, path="/one-key/v1/messages")
    verbose_server.server.headers["X-AIBridge-Token"] = token
    id = re.search(rb"X-AIBridge-Interception-Id: (\S+)", answer)
    record = verbose_server.server.record(id[1].decode())
    noted = ("user_agent", "client_session_id", "agent_id", "parent_agent_id")
    assert [record[name] for name in noted] == [""] * 4
    assert not any(contains(file, token) for file in verbose_server.files())


UNREADABLE = [
    "POST / HTTP/1.1\r\nAuthorization Bearer {0}\r\n\r\n", "POST / HTTP/1.1\r\nX: a\r\n Bearer {0}\r\n\r\n", "POST / HTTP/1.1\r\nX-Api-Key: {0}\0\r\n\r\n", "POST / HTTP/1.1\r\n{0} : a\r\n\r\n",
    "POST / HTTP/1.1\r\nExpect: {0}\r\n\r\n", "POST / HTTP/1.1\r\nTransfer-Encoding: {0}\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length: {0}\r\n\r\n", "POST / HTTP/1.1\r\nX-Api-Key: {0}", "POST / HTTP/1.1\r\nX-Api-Key: {0}\r\n",
    "POST /?key={0} HTTP/9\r\n\r\n", "POST / {0} HTTP/1.1\r\n\r\n", "{0} / HTTP/1.1\r\n\r\n", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{0}\r\n", "POST /{0}", "{0}",
]  # fmt: skip


@pytest.mark.parametrize("request_text", UNREADABLE)
def test_a_request_that_the_server_cannot_read_is_not_repeated(
    verbose_server: VerboseServer, request_text: str
) -> None:
    """Neither in its log nor in its answer."""
    client, log = verbose_server.server.connect(), verbose_server.server.log
    before = len(log.read_bytes())
    client.sock.sendall(request_text.format(WRONG).encode())
    client.sock.shutdown(socket.SHUT_WR)
    assert not contains(client.stream.read(), WRONG)
    wait_until(lambda: len(log.read_bytes()) > before)
    assert not contains(log.read_bytes(), WRONG)
    client.close()


def test_a_database_password_appears_nowhere(
    upstream: Upstream, postgres: Postgres, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also while the database is away."""
    url = postgres.new_url().replace("postgres@", f"postgres:{DATABASE}@")
    assert DATABASE in url
    environment.setenv("AIBRIDGE_DATABASE_URL", url)
    server = VerboseServer(tmp_path, upstream, url)
    environment.delenv("AIBRIDGE_DATABASE_URL")
    upstream.handler = lambda received: [http_response(200, b"{}")]
    assert b"200 OK" in server.ask()
    postgres.halt()
    try:
        server.ask()
        server.send(f"X-AIBridge-Token: aib_{WRONG}", method="GET", path="/interceptions")
        server.send(f"X-AIBridge-Token: {server.tokens[1]}", method="GET", path="/interceptions")
        wait_until(lambda: "the database takes no records" in server.server.log.read_text())
    finally:
        postgres.resume()
    server.server.disconnect()
    server.server.stop()
    assert not any(contains(text, *server.secrets()) for text in (*server.answers, *server.files()))


# Values in memory

SETTINGS_WITH_SECRETS = {
    "database_url": f"postgresql+psycopg://user:{DATABASE}@host/db", "proxy": f"http://user:{PROXY}@proxy:1",
    "redis_url": f"redis://:{REDIS}@host/0", "mcp_servers": [{"name": "a", "url": "http://x", "headers": {"Authorization": {"value": TOOLS}}}],
    "providers": [
        {"type": "anthropic", "keys": [{"value": VALUE}], "proxy": f"http://user:{PROXY}@proxy:2", "send_actor_headers": True},
        {"type": "bedrock", "aws": {"region": "r", "access_key": {"value": AWS}, "secret_key": {"value": AWS}, "model": "m", "small_fast_model": "s"}},
    ],
}  # fmt: skip


@pytest.mark.parametrize("credential", [{}, {"x-api-key": OWN}, {"authorization": f"Bearer {OWN}"}])
def test_repr_of_request_values_shows_no_secret(credential: dict[str, str]) -> None:
    settings = config.load(SETTINGS_WITH_SECRETS)
    outbound = Outbound(
        settings, settings.providers[0], SharedState(), Hooks(), StoredObjects(recorder.Recorder(settings))
    )
    headers = {**credential, "x-aibridge-token": f"aib_{WRONG}", "cookie": OWN}
    request = ClientRequest("POST", "/v1/messages", "", headers, lambda: b"")
    credentials = outbound.credentials_for(headers)
    sent = outbound.bridged_request(
        request, "https://x/y", b"{}", Actor("me"), credentials, False, "id-1", "m"
    )
    assert (OWN if credential else VALUE) in str(credentials.first.header)
    values = (
        settings,
        *settings.providers,
        *settings.mcp_servers,
        *settings.providers[0].keys,
        *settings.providers[1].aws,
    )
    for value in (
        *values,
        outbound,
        outbound.provider,
        request,
        credentials,
        credentials.first,
        sent,
        vars(outbound),
        vars(outbound.pool),
    ):
        to_rich = list(getattr(value, "__rich_repr__", list)())  # tracebacks of `rich` take it for `repr`
        assert not contains(f"{value!r} {value} {to_rich}", *CONFIGURED, OWN, WRONG)


def test_a_traceback_shows_no_secret(
    make_app: MakeApp, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(providers=[{"type": "anthropic", "base_url": upstream.url, "keys": [{"value": VALUE}]}])

    @app.extensions["aibridge"].actor_loader
    def fail(request: object) -> Actor:
        raise RuntimeError("the host's own")

    with caplog.at_level(logging.DEBUG):
        response = app.test_client().post(
            f"{PREFIX}/anthropic/v1/messages", data=ASK, headers={"X-Api-Key": OWN}
        )
    assert response.status_code == 500
    assert "the host's own" not in response.get_data(as_text=True)
    assert "the host's own" in caplog.text
    assert not contains(caplog.text, VALUE, OWN)


# Wrong settings

PROVIDER = {"type": "openai"}
WRONG_SETTINGS: list[dict[str, Any]] = [
    *({name: f"{scheme}://user:{WRONG}@{host}"} for name, scheme in (("proxy", "http"), ("redis_url", "redis")) for host in ("[::1", "[x]/", "ho\u2100st")),
    {"proxy": f"socks5://user:{WRONG}@h"}, {"redis_url": f"http://:{WRONG}@h"}, {"database_url": f"mysql://u:{WRONG}@h/d"}, {"database_url": [WRONG]},
    *({"providers": [{**PROVIDER, "keys": keys}]} for keys in (
        [{"env": WRONG}], [{"file": WRONG}], [{"file": f"{WRONG}\0"}], [{WRONG: "x"}], [WRONG], WRONG, {"value": WRONG}, [{"value": f"{WRONG}\n{WRONG}"}], [{"value": f"{WRONG}\u00e9"}], [{"value": WRONG, "env": WRONG}], [{"value": [WRONG]}],
    )),
    *({"providers": [{**PROVIDER, **wrong}]} for wrong in ({"base_url": f"https://user:{WRONG}@h/v1"}, {"base_url": f"https://h/?key={WRONG}"}, {"key": WRONG}, {"proxy": f"http://user:{WRONG}@[::1"}, {"keys": [{"value": WRONG}], "enabled": "no"})),
    *({"mcp_servers": [{"name": "a", "url": "http://h", "headers": headers}]} for headers in ({"Authorization": WRONG}, {"Authorization": {"env": WRONG}}, [WRONG], {"A": {"value": WRONG}, "B": 5})),
    {"mcp_servers": [{"name": "a", "url": f"http://user:{WRONG}@h"}]}, {"tracing": {"endpoint": f"http://user:{WRONG}@h"}}, {"nonsense": WRONG}, {"auth": {"mode": WRONG}},
    {"providers": [{"type": "bedrock", "aws": {"region": "r", "access_key": {"value": WRONG}, "model": "m", "small_fast_model": "s"}}]},
    *({"database_url": f"postgresql+psycopg://{rest}"} for rest in (
        f"user:{WRONG}@127.0.0.1:1/d", f"user:a@{WRONG}@127.0.0.1:1/d", f"user:{WRONG}/x@127.0.0.1:1/d", f"user@127.0.0.1:1/d?password={WRONG}", f"user:{WRONG}@127.0.0.1:{WRONG}/d",
        f"user:x@[{WRONG}", f"user:{WRONG}#@127.0.0.1:1/d", f"user:{WRONG}%zz@127.0.0.1:1/d", f"user@127.0.0.1:1/d?{WRONG}=1",
    )),
]  # fmt: skip


def start_application(tree: dict[str, Any]) -> None:
    """Starts as a server does: creates the application, then checks log and database."""
    app = create_app(tree)
    recorder.check(app.config["AIBRIDGE_SETTINGS"])


@pytest.mark.parametrize("tree", WRONG_SETTINGS, ids=lambda tree: str(tree)[:60])
def test_a_wrong_setting_shows_no_secret(tree: dict[str, Any], tmp_path: Path) -> None:
    full = {"database_url": f"sqlite:///{tmp_path}/r.db", "providers": [], **tree}
    with pytest.raises(ConfigError) as caught:
        start_application(full)
    assert not contains(str(caught.getrepr(style="short")).partition("start_application(full)")[2], WRONG)
    assert not contains(str(caught.value), WRONG)
    assert str(caught.value).split(":")[0].split("[")[0].split(".")[0] == next(iter(tree))


class ServerWithText(Server):
    """A server whose configuration file is a given text."""

    def configure(self, **settings: object) -> None:
        self.config.write_text(str(self.settings["text"]))


@pytest.mark.parametrize(
    "text",
    [f'proxy = "{WRONG}', f'[[providers]]\ntype = "openai"\nkeys = [{{env = "{WRONG}"}}]', f'database_url = "postgresql+psycopg://u:{WRONG}@127.0.0.1:{WRONG}/d"'],
)  # fmt: skip
def test_a_server_that_cannot_start_shows_no_secret(tmp_path: Path, text: str) -> None:
    server = ServerWithText(tmp_path, {"text": text}, "--log-level", "debug")
    assert server.process.wait(20) != 0
    log = server.log.read_text()
    assert log
    assert not contains(log, WRONG)
