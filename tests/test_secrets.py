"""No secret shows: in no answer, log line, record, process list, `repr` or traceback."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
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
from aibridge_flask.upstream.shared_state import SharedState
from tests.conftest import MakeApp
from tests.support.dialogue import ASK, ASK_BLOCKING, END, START
from tests.support.postgres import Postgres
from tests.support.server import PREFIX, Server, free_port, wait_until
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


def needles(*secrets: str) -> list[bytes]:
    """A secret, what of it is no hint, and as a proxy is told it."""
    found = []
    for secret in secrets:
        found += [secret.encode(), secret[6:-6].encode()]
        found.append(base64.b64encode(f"user:{secret}".encode())[8:-8])
    return found


def shows(text: bytes | str, *secrets: str) -> bool:
    data = text if isinstance(text, bytes) else text.encode()
    return any(needle in data for needle in needles(*secrets))


def settings(upstream_url: str, key_file: Path) -> dict[str, Any]:
    """Secrets wherever there may be some."""
    away = f"http://127.0.0.1:{free_port()}"
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
            {"type": "anthropic", "name": "away", "base_url": away, "keys": [key]},
            {"type": "anthropic", "name": "tls", "base_url": away.replace("http", "https"), "keys": [key]},
            {"type": "anthropic", "name": "proxied", "base_url": "http://provider.test", "keys": [key], "proxy": f"http://user:{PROXY}@{upstream_url[7:]}"},
            {"type": "anthropic", "name": "tunnelled", "base_url": "https://provider.test", "keys": [key], "proxy": f"http://user:{PROXY}@{upstream_url[7:]}"},
            {"type": "anthropic", "name": "proxy-away", "base_url": "https://provider.test", "keys": [key], "proxy": f"http://user:{PROXY}@{away[7:]}"},
            {"type": "openai", "name": "off", "enabled": False, "base_url": upstream_url, "keys": [key]},
        ],
        "mcp_servers": [{"name": "docs", "url": away, "headers": {"Authorization": {"value": TOOLS}}}],
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


class Talkative:
    """A server that logs all it can, and all that it ever answered."""

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
        self.server = Server(folder, tree, *options).wait_ready()
        self.tokens = [self._token(), self._token("--admin")]
        self.answers: list[bytes] = []

    def _token(self, *options: str) -> str:
        found = CliRunner().invoke(aibridge, ["token", "create", "--user", "alice", *options])
        return found.stdout.strip()

    def say(self, *lines: str, method: str = "POST", path: str, body: bytes = ASK_BLOCKING) -> bytes:
        """One request, and all that came."""
        framing = [f"Content-Length: {len(body)}"] if method == "POST" else []
        said = [
            f"{method} {PREFIX}{path} HTTP/1.1",
            "Host: localhost",
            "Connection: close",
            *lines,
            *framing,
            "",
            "",
        ]
        client = self.server.connect()
        client.sock.sendall("\r\n".join(said).encode("latin-1") + (body if framing else b""))
        found = b""
        with contextlib.suppress(ConnectionError):
            while piece := client.sock.recv(65536):
                found += piece
        client.close()
        self.answers.append(found)
        return found

    def ask(self, *lines: str, path: str = "/anthropic/v1/messages", **more: Any) -> bytes:
        return self.say(f"X-AIBridge-Token: {self.tokens[0]}", *lines, path=path, **more)

    def secrets(self) -> tuple[str, ...]:
        return (*CONFIGURED, OWN, WRONG, *self.tokens)

    def files(self) -> Iterator[bytes]:
        """What the server has written anywhere, but for its configuration."""
        for path in self.folder.rglob("*"):
            if path.is_file() and path.name not in ("key", "aibridge.toml"):
                yield path.read_bytes()


@pytest.fixture(scope="module")
def environment() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET_OF_TEST", ENV)
        yield patch


@pytest.fixture(scope="module")
def talkative(
    shared_upstream: Upstream, environment: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Talkative]:
    folder = tmp_path_factory.mktemp("talkative")
    url = f"sqlite:///{folder}/records.db"
    environment.setenv("AIBRIDGE_DATABASE_URL", url)
    found = Talkative(folder, shared_upstream, url)
    environment.delenv("AIBRIDGE_DATABASE_URL")
    yield found
    found.server.disconnect()
    found.server.process.kill()
    found.server.process.wait()


def refused(status: int) -> bytes:
    return http_response(
        status,
        b'{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key: cnry...00"}}',
    )


def exchanges(one: Talkative, upstream: Upstream) -> None:
    """Everything that goes well, and everything that does not."""
    paths = [
        "/anthropic/v1/messages",
        "/by-env/v1/messages",
        "/openai/v1/chat/completions",
        "/openai/v1/responses",
    ]
    for path in paths:
        for said in (
            [http_response(200, b'{"id":"x"}')],
            [refused(401)],
            [refused(403)],
            [refused(429)],
            [refused(500)],
            [b"junk"],
            [CLOSE],
            [RESET],
            [WAIT_FOR_CLOSE],
        ):
            upstream.enqueue(*said)
            one.ask(path=path)
        for said in (
            event_stream(START + END),
            [stream_head(), chunk(START), CLOSE],
            [head(200, "Content-Length: 9"), b"{", RESET],
            [stream_head(), WAIT_FOR_CLOSE],
        ):
            upstream.enqueue(*said)
            one.ask(path=path, body=ASK)
    for line in (
        f"X-Api-Key: {OWN}",
        f"Authorization: Bearer {OWN}",
        f"Authorization: Bearer {OWN}, {OWN}",
        f"Authorization: Basic {OWN}",
    ):
        for path in (*paths, "/copilot/chat/completions"):
            upstream.enqueue(refused(401))
            one.ask(line, path=path)
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
        upstream.enqueue(refused(407))
        one.ask(path=path)
    for token in (*one.tokens, f"aib_{WRONG}", WRONG):
        for line in (
            f"X-AIBridge-Token: {token}",
            f"X-Coder-AI-Governance-Token: {token}",
            f"X-Api-Key: {token}",
            f"Authorization: Bearer {token}",
            f"X-AIBridge-Token: {token}\r\nX-AIBridge-Token: {token}",
        ):
            upstream.enqueue(http_response(200, b"{}"))
            one.say(line, path="/anthropic/v1/messages")
            upstream.reset()
            one.say(line, method="GET", path="/interceptions?q=nonsense:1")
    for body in (b"", b"[", b"\xff", b"{}" * 9):
        one.ask(f"X-Api-Key: {OWN}", body=body)
    one.ask("X-Bad: a\0b", f"X-Api-Key: {OWN}")
    one.ask("Content-Encoding: nonsense", f"X-Api-Key: {OWN}")


def test_a_talkative_server_tells_no_secret(talkative: Talkative, upstream: Upstream) -> None:
    """The answers, the log at its most verbose, the records, the files and the processes."""
    exchanges(talkative, upstream)
    with contextlib.closing(sqlite3.connect(talkative.folder / "records.db", isolation_level=None)) as lock:
        lock.execute("BEGIN IMMEDIATE")
        upstream.enqueue(http_response(200, b'{"id":"spooled"}'))
        assert b"spooled" in talkative.ask(f"X-Api-Key: {OWN}")
        assert any(b"spooled" in path.read_bytes() for path in (talkative.folder / "spool").rglob("*.log"))
        assert not any(shows(file, *talkative.secrets()) for file in talkative.files())
        lock.execute("ROLLBACK")
    shown = talkative.say(f"X-Api-Key: {talkative.tokens[1]}", method="GET", path="/interceptions?limit=1000")
    assert json.loads(shown.partition(b"\r\n\r\n")[2])["count"] > 60
    assert shown.count(b'"cnry...nd03"') > 3  # the hints
    assert not any(shows(one, *talkative.secrets()) for one in talkative.answers)
    assert not any(shows(file, *talkative.secrets()) for file in talkative.files())
    log = talkative.server.log.read_text()
    assert "urllib3" in log
    assert "sqlalchemy" in log
    assert "Traceback" not in log
    for pid in (talkative.server.process.pid, *talkative.server.workers()):
        assert not shows(Path(f"/proc/{pid}/cmdline").read_bytes(), *talkative.secrets())
    assert not any(path.stat().st_mode & 0o77 for path in Path(tempfile.gettempdir()).glob("aibridge-*.json"))


def test_the_upstream_hears_the_secrets_and_no_others(talkative: Talkative, upstream: Upstream) -> None:
    """The canaries were alive: each provider was asked with its own."""
    for path, secret in (
        ("/one-key/v1/messages", VALUE),
        ("/by-env/v1/messages", ENV),
        ("/openai/v1/responses", FILE),
    ):
        upstream.enqueue(http_response(200, b"{}"))
        talkative.ask(path=path)
        heard = upstream.requests[-1]
        assert secret in (
            heard.header("x-api-key"),
            str(heard.header("authorization")).removeprefix("Bearer "),
        )
        assert not shows(str(heard), *(one for one in talkative.secrets() if one != secret))


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["X-AIBridge-Token: {0}", "X-AIBridge-Token: {0}"], 401), (["X-AIBridge-Token: {0}", "X-AIBridge-Token: {1}"], 401), (["Authorization: Bearer {0}", "Authorization: Bearer {1}"], 401),
        (["Authorization: Bearer own", "Authorization: Bearer {0}"], 401), (["X-Api-Key: {0}", "X-Api-Key: own"], 401), (["X-AIBridge-Token: {0}", "Authorization: Bearer own, {1}"], 401),
        (["X-AIBridge-Token: {0}", "Authorization: Bearer {1}", "X-Api-Key: {1}"], 200), (["X-AIBridge-Token: {0}", "X-Coder-AI-Governance-Token: {1}"], 200), (["X_AIBridge_Token: {0}"], 401),
    ],
)  # fmt: skip
def test_tokens_that_come_twice_never_go_on(
    talkative: Talkative, upstream: Upstream, lines: list[str], status: int
) -> None:
    upstream.enqueue(http_response(200, b"{}"))
    said = talkative.say(*(line.format(*talkative.tokens) for line in lines), path="/one-key/v1/messages")
    assert said.startswith(b"HTTP/1.1 %d " % status)
    assert len(upstream.requests) == (status == 200)
    assert not shows(str(upstream.requests), *talkative.tokens)


def test_a_databases_password_shows_nowhere(
    upstream: Upstream, postgres: Postgres, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also while it is away."""
    url = postgres.new_url().replace("postgres@", f"postgres:{DATABASE}@")
    assert DATABASE in url
    environment.setenv("AIBRIDGE_DATABASE_URL", url)
    one = Talkative(tmp_path, upstream, url)
    environment.delenv("AIBRIDGE_DATABASE_URL")
    upstream.handler = lambda heard: [http_response(200, b"{}")]
    assert b"200 OK" in one.ask()
    postgres.halt()
    try:
        one.ask()
        one.say(f"X-AIBridge-Token: aib_{WRONG}", method="GET", path="/interceptions")
        one.say(f"X-AIBridge-Token: {one.tokens[1]}", method="GET", path="/interceptions")
        wait_until(lambda: "the database takes no records" in one.server.log.read_text())
    finally:
        postgres.resume()
    one.server.disconnect()
    one.server.stop()
    assert not any(shows(found, *one.secrets()) for found in (*one.answers, *one.files()))


# Values

SECRETIVE = {
    "database_url": f"postgresql+psycopg://user:{DATABASE}@host/db", "proxy": f"http://user:{PROXY}@proxy:1",
    "redis_url": f"redis://:{REDIS}@host/0", "mcp_servers": [{"name": "a", "url": "http://x", "headers": {"Authorization": {"value": TOOLS}}}],
    "providers": [
        {"type": "anthropic", "keys": [{"value": VALUE}], "proxy": f"http://user:{PROXY}@proxy:2", "send_actor_headers": True},
        {"type": "bedrock", "aws": {"region": "r", "access_key": {"value": AWS}, "secret_key": {"value": AWS}, "model": "m", "small_fast_model": "s"}},
    ],
}  # fmt: skip


@pytest.mark.parametrize("given", [{}, {"x-api-key": OWN}, {"authorization": f"Bearer {OWN}"}])
def test_no_value_on_a_requests_way_shows_its_secret(given: dict[str, str]) -> None:
    found = config.load(SECRETIVE)
    outbound = Outbound(found, found.providers[0], SharedState(), Hooks())
    headers = {**given, "x-aibridge-token": f"aib_{WRONG}", "cookie": OWN}
    request = ClientRequest("POST", "/v1/messages", "", headers, lambda: b"")
    credentials = outbound.credentials_for(headers)
    sent = outbound.bridged_request(request, "https://x/y", b"{}", Actor("me"), False, "id-1", "m")
    assert (OWN if given else VALUE) in str(credentials.first.header)
    values = (found, *found.providers, *found.mcp_servers, *found.providers[0].keys, *found.providers[1].aws)
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
        assert not shows(f"{value!r} {value} {to_rich}", *CONFIGURED, OWN, WRONG)


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
    assert (response.status_code, response.get_json()["error"]["type"]) == (500, "api_error")
    assert "the host's own" not in response.get_data(as_text=True)
    assert "the host's own" in caplog.text
    assert not shows(caplog.text, VALUE, OWN)


# Starting with something wrong

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


def start(tree: dict[str, Any]) -> None:
    """As a server starts: the application is made, then log and database are checked."""
    app = create_app(tree)
    recorder.check(app.config["AIBRIDGE_SETTINGS"])


@pytest.mark.parametrize("tree", WRONG_SETTINGS, ids=lambda tree: str(tree)[:60])
def test_a_wrong_setting_shows_no_secret(tree: dict[str, Any], tmp_path: Path) -> None:
    full = {"database_url": f"sqlite:///{tmp_path}/r.db", "providers": [], **tree}
    with pytest.raises(ConfigError) as caught:
        start(full)
    assert not shows(str(caught.getrepr(style="short")).partition("start(full)")[2], WRONG)
    assert not shows(str(caught.value), WRONG)
    assert str(caught.value).split(":")[0].split("[")[0].split(".")[0] == next(iter(tree))


class Written(Server):
    """A server whose configuration is a text."""

    def configure(self, **settings: object) -> None:
        self.config.write_text(str(self.settings["text"]))


@pytest.mark.parametrize(
    "text",
    [f'proxy = "{WRONG}', f'[[providers]]\ntype = "openai"\nkeys = [{{env = "{WRONG}"}}]', f'database_url = "postgresql+psycopg://u:{WRONG}@127.0.0.1:{WRONG}/d"'],
)  # fmt: skip
def test_a_server_that_cannot_start_tells_no_secret(tmp_path: Path, text: str) -> None:
    server = Written(tmp_path, {"text": text}, "--log-level", "debug")
    assert server.process.wait(20) != 0
    log = server.log.read_text()
    assert log
    assert not shows(log, WRONG)
