"""The bridge inside a Flask application."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import subprocess
import sys
from operator import le
from pathlib import Path

import pytest
from flask import Flask, Response

from aibridge_flask import Actor, AIBridge, ConfigError
from aibridge_flask.records.events import InterceptionEnded, InterceptionStarted
from tests.conftest import MakeApp, providers
from tests.support.server import PREFIX, ROOT, wait_until
from tests.support.upstream import (
    TIMEOUT_SECONDS,
    WAIT_FOR_CLOSE,
    Upstream,
    chunk,
    event_stream,
    http_response,
    stream_head,
)

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()
MESSAGES = f"{PREFIX}/anthropic/v1/messages"


def make_host(folder: Path, upstream: Upstream, **settings: object) -> Flask:
    """A host application with pages, an error handler and a hook of its own."""
    app = Flask("host")
    app.config["AIBRIDGE"] = {
        "database_url": f"sqlite:///{folder}/records.db",
        "providers": providers(upstream.url),
        **settings,
    }
    app.config["MAX_CONTENT_LENGTH"] = 10

    @app.get("/")
    def home() -> str:
        return "home"

    @app.post("/form")
    def form() -> str:
        from flask import request

        return str(len(request.get_data()))

    @app.errorhandler(404)
    def lost(error: Exception) -> tuple[str, int]:
        return "the host's own page", 404

    @app.after_request
    def mark(response: Response) -> Response:
        response.headers["X-Host"] = "1"
        return response

    return app


def test_the_readmes_example_works(
    tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs the example unchanged, except for the place of its records and its provider."""
    (code,) = re.findall(r"```python\n(.*?app\.run.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    monkeypatch.setattr(Flask, "run", lambda app: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-0123456789012")
    monkeypatch.setenv("HTTPS_PROXY", upstream.url)
    names: dict[str, object] = {"__name__": "__main__"}
    exec(compile(code, "README.md", "exec"), names)
    app, bridge = names["app"], names["bridge"]
    assert isinstance(app, Flask)
    assert isinstance(bridge, AIBridge)
    client = app.test_client()
    assert client.get(f"{PREFIX}/healthz").status_code == 200
    assert client.post(MESSAGES, data=b"{}").status_code == 401
    upstream.enqueue(http_response(403, b""))  # the proxy refuses the tunnel: the request reached it
    response = client.post(MESSAGES, data=b"{}", headers={"X-User": "ann"}, buffered=True)
    assert response.status_code == 502
    assert upstream.requests[0].target == "api.anthropic.com:443"
    bridge.close(app)


def test_the_hosts_own_pages_are_unchanged(tmp_path: Path, upstream: Upstream) -> None:
    app = make_host(tmp_path, upstream)
    bridge = AIBridge(app)
    client = app.test_client()
    assert client.get("/").get_data(as_text=True) == "home"
    assert client.get("/nowhere").get_data(as_text=True) == "the host's own page"
    assert client.post("/form", data=b"x" * 11).status_code == 413
    upstream.enqueue(*event_stream(b"data: 1\n\n"))
    body = b'{"model":"m","messages":[]}'
    response = client.post(MESSAGES, data=body, buffered=True)
    assert (response.get_data(), response.headers["X-Host"]) == (b"data: 1\n\n", "1")
    assert client.get(f"{PREFIX}/anthropic/nowhere").get_json()["error"]["type"] == "not_found_error"
    bridge.close(app)


def test_one_extension_serves_several_applications(tmp_path: Path, upstream: Upstream) -> None:
    bridge = AIBridge()
    apps = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        app = make_host(tmp_path / name, upstream, url_prefix=f"/{name}/ai")
        bridge.init_app(app)
        apps.append(app)
    for name, app in zip(("one", "two"), apps, strict=True):
        upstream.enqueue(http_response(200, b"{}"))
        client = app.test_client()
        response = client.post(
            f"/{name}/ai/anthropic/v1/messages", data=b'{"model":"%s"}' % name.encode(), buffered=True
        )
        assert response.status_code == 200
        listing = client.get(f"/{name}/ai/interceptions").get_json()
        assert [record["model"] for record in listing["results"]] == [name]
        assert client.get(f"{PREFIX}/healthz").status_code == 404
        bridge.close(app)


def test_a_second_bridge_on_one_application_is_refused(tmp_path: Path, upstream: Upstream) -> None:
    app = make_host(tmp_path, upstream)
    AIBridge(app)
    with pytest.raises(RuntimeError, match="already"):
        AIBridge(app)


def test_wrong_settings_stop_the_start(tmp_path: Path, upstream: Upstream) -> None:
    with pytest.raises(ConfigError, match="colour"):
        AIBridge(make_host(tmp_path, upstream, colour="red"))


@pytest.mark.parametrize(
    "path", ["/anthropic/v1/models/x", "/anthropic/v1/models/a%2Fb", "/anthropic//v1/models"]
)
def test_a_server_without_raw_targets_serves_plain_paths_only(
    tmp_path: Path, upstream: Upstream, path: str
) -> None:
    app = make_host(tmp_path, upstream)
    bridge = AIBridge(app)

    def without_raw_target(environ: dict[str, object], start: object) -> object:
        environ.pop("RAW_URI")
        environ.pop("REQUEST_URI")
        environ["PATH_INFO"] = PREFIX + path
        return app.wsgi_app(environ, start)

    from werkzeug.test import Client

    upstream.enqueue(http_response(200, b"{}"))
    response = Client(without_raw_target).get("/", environ_base={"REMOTE_ADDR": "127.0.0.1"}, buffered=True)
    assert response.status_code == (200 if path.endswith("/x") else 404)
    bridge.close(app)


def test_the_standalone_page_lists_the_base_urls(make_app: object) -> None:
    page = make_app().test_client().get("/").get_data(as_text=True)
    for part in (
        "ANTHROPIC_BASE_URL=http://localhost/api/v2/aibridge/anthropic",
        "/openai/v1",
        "/copilot",
        "/healthz",
    ):
        assert part in page
    assert "/off" not in page


class HostString(str):
    """A host's own subclass of str."""

    __slots__ = ()

    def __str__(self) -> str:
        return self


def test_the_urls_of_the_standalone_application_can_be_built(make_app: MakeApp) -> None:
    urls = make_app().url_map.bind("127.0.0.1")
    assert (
        urls.build("aibridge_records.GET_interception", {"id": "a b", "q": "x"})
        == f"{PREFIX}/interceptions/a%20b?q=x"
    )
    assert urls.build("aibridge_ui.overview") == f"{PREFIX}/ui/"


@pytest.mark.parametrize("kind", [str, HostString])
def test_an_actor_without_rights_sees_only_its_own(
    tmp_path: Path, upstream: Upstream, kind: type[str]
) -> None:
    app = make_host(tmp_path, upstream)
    bridge = AIBridge(app)
    bridge.actor_loader(lambda request: Actor(kind(request.headers["X-Who"]), {"team": kind("a")}))
    client = app.test_client()
    upstream.enqueue(http_response(200, b"{}"))
    client.post(MESSAGES, data=b'{"model":"m"}', headers={"X-Who": "ann"}, buffered=True)
    counts = [
        client.get(f"{PREFIX}/interceptions", headers={"X-Who": user}).get_json()["count"]
        for user in ("ann", "bob")
    ]
    assert counts == [1, 0]
    bridge.close(app)


@pytest.mark.parametrize("replaces", [False, True])
def test_a_host_that_drops_a_response_ends_its_interception(
    tmp_path: Path, upstream: Upstream, replaces: bool
) -> None:
    app = make_host(tmp_path, upstream)
    bridge = AIBridge(app)

    @app.after_request
    def after(response: Response) -> Response:
        if not replaces:
            raise ZeroDivisionError
        return Response("ours", 418)

    upstream.enqueue(stream_head(), chunk(b"event: ping\n\n"), WAIT_FOR_CLOSE)
    response = app.test_client().post(MESSAGES, data=b'{"model":"m","stream":true}', buffered=True)
    assert response.status_code == (418 if replaces else 500)
    assert upstream.peer_closed.wait(TIMEOUT_SECONDS)
    bridge.close(app)
    with contextlib.closing(sqlite3.connect(tmp_path / "records.db")) as database:
        rows = database.execute("SELECT ended_at IS NOT NULL, error_type FROM interceptions").fetchall()
    assert rows == [(1, "client_closed")]


def test_host_listeners_get_interceptions_and_their_failures_do_no_harm(
    tmp_path: Path, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_host(tmp_path, upstream)
    bridge = AIBridge(app)
    events: list[tuple[str, object]] = []

    @bridge.on_interception_started
    def on_started(event: InterceptionStarted) -> None:
        events.append((event.started.model, len(upstream.requests)))
        raise RuntimeError("the host's own")

    @bridge.on_interception_ended
    def on_ended(event: InterceptionEnded) -> None:
        events.append((event.started.id, event.ended.status_code))

    upstream.enqueue(http_response(200, b"{}"))
    response = app.test_client().post(MESSAGES, data=b'{"model":"m"}', buffered=True)
    assert response.status_code == 200
    assert events == [("m", 0), (response.headers["X-AIBridge-Interception-Id"], 200)]
    assert "a listener failed" in caplog.text
    bridge.close(app)


_MAKE_APPLICATIONS = """
import json, sys
from pathlib import Path
from flask import Flask
from aibridge_flask import AIBridge

def count():
    return [len(list(Path("/proc/self", name).iterdir())) for name in ("fd", "task")]

before = count()
for _ in range(5):
    app = Flask("host")
    app.config["AIBRIDGE"] = json.loads(sys.argv[1])
    AIBridge(app)
print(before, count())
"""


def test_making_an_application_opens_nothing(tmp_path: Path, upstream: Upstream) -> None:
    """In a process of its own, since threads of other tests may still open and close files in this one."""
    servers = [{"name": "docs", "url": f"{upstream.url}/mcp"}]
    app = make_host(tmp_path, upstream, mcp_servers=servers)
    command = [sys.executable, "-c", _MAKE_APPLICATIONS, json.dumps(app.config["AIBRIDGE"])]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    before, after = re.findall(r"\[.*?\]", process.stdout)
    assert before == after
    assert list(tmp_path.iterdir()) == []
    assert upstream.connections == 0


def count_files_and_threads() -> tuple[int, int]:
    return len(list(Path("/proc/self/fd").iterdir())), len(list(Path("/proc/self/task").iterdir()))


def test_a_closed_application_leaves_no_file_and_no_thread(tmp_path: Path, upstream: Upstream) -> None:
    upstream.handler = lambda received: [http_response(200, b"{}")]

    def use_and_close() -> tuple[int, int]:
        app = make_host(tmp_path, upstream, mcp_servers=[{"name": "docs", "url": f"{upstream.url}/mcp"}])
        bridge = AIBridge(app)
        assert app.test_client().post(MESSAGES, json={"model": "m"}).get_data() == b"{}"
        bridge.close(app)
        return count_files_and_threads()

    files, threads = use_and_close()
    wait_until(lambda: all(map(le, use_and_close(), (files, threads))))
