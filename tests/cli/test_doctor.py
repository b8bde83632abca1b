"""`aibridge doctor` says what is wrong, why it matters, and what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from aibridge_flask.cli import aibridge
from aibridge_flask.records import database as databases
from tests.conftest import BOTH_DATABASES, MakeApp
from tests.support.mcp import ScriptedMcp
from tests.support.nginx import Nginx
from tests.support.people import Person, app_for_people
from tests.support.redis import RedisServer
from tests.support.schema import set_info
from tests.support.server import Server, toml
from tests.support.upstream import Upstream, http_response

KEY = "sk-ant-canary-0123456789"


@pytest.fixture
def configure(tmp_path: Path, database_url: str, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a configuration with these settings."""

    def write(**settings: object) -> None:
        provider = {"type": "anthropic", "base_url": upstream.url, "keys": [{"value": KEY}]}
        spool = str(tmp_path / "spool")
        tree = {"database_url": database_url, "spool_dir": spool, "providers": [provider], **settings}
        file = tmp_path / "aibridge.toml"
        file.write_text("".join(f"{key} = {toml(value)}\n" for key, value in tree.items()))
        monkeypatch.setenv("AIBRIDGE_CONFIG", str(file))

    return write


def run(*arguments: str) -> Result:
    return CliRunner().invoke(aibridge, ["doctor", *arguments])


def findings(*arguments: str) -> dict[str, tuple[str, str]]:
    """Status and detail of each check; the last of one name."""
    told = run("--json", *arguments)
    found = json.loads(told.output)
    assert all(set(each) == {"check", "status", "detail", "advice"} for each in found)
    assert all(each["advice"] for each in found if each["status"] != "ok")
    assert told.exit_code == any(each["status"] == "fail" for each in found)
    assert KEY not in told.output
    return {each["check"]: (each["status"], each["detail"]) for each in found}


@BOTH_DATABASES
def test_all_is_well(configure: Any, upstream: Upstream, tmp_path: Path) -> None:
    configure()
    upstream.enqueue(http_response(200, b'{"data":[]}'))
    found = findings()
    assert {status for status, _ in found.values()} == {"ok"}
    assert found["provider anthropic"][1] == "it accepts the key sk-a...6789"
    (request,) = upstream.requests
    assert (request.method, request.target, request.header("X-Api-Key")) == ("GET", "/v1/models", KEY)
    assert not (tmp_path / "spool").exists()  # the server makes it, under its own user


def test_a_wrong_setting_is_named(configure: Any) -> None:
    configure(auth={"mode": "open"})
    status, detail = findings()["configuration"]
    assert (status, "auth.mode: " in detail) == ("fail", True)


def test_a_provider_is_judged_by_what_it_answers(configure: Any, upstream: Upstream) -> None:
    keys = [{"value": KEY}, {"value": "sk-ant-second-9876543210"}]
    gone = {"type": "openai", "name": "gone", "base_url": "http://127.0.0.1:9"}
    off = {"type": "openai", "name": "off", "enabled": False}
    own = {"type": "copilot", "base_url": upstream.url}
    configure(providers=[{"type": "anthropic", "base_url": upstream.url, "keys": keys}, gone, off, own])
    for status in (401, 500, 401):
        upstream.enqueue(http_response(status, b"{}"))
    told = run().output
    assert "FAIL  provider anthropic: it refuses the key sk-a...6789 (status 401)" in told
    assert (
        "WARN  provider anthropic: it answers with status 500: nothing is known of the key sk-a...3210"
        in told
    )
    assert "FAIL  provider gone: the AI provider could not be reached" in told
    assert "ok    provider copilot: it can be reached" in told
    assert "provider off" not in told


def test_a_database_that_is_away_or_too_new_is_told(configure: Any, database_url: str) -> None:
    set_info(databases.connect(database_url), min_code="1000")
    configure(providers=[])
    assert findings()["database"][0] == "fail"
    configure(providers=[], database_url="postgresql+psycopg://me:canary@127.0.0.1:9/none")
    status, detail = findings()["database"]
    assert (status, "canary" in detail) == ("fail", False)
    configure(providers=[], database_url="sqlite:////nowhere/at/all.db")
    assert "is not there yet" in findings()["database"][1]


def test_models_without_a_price_are_named(
    configure: Any, make_app: MakeApp, upstream: Upstream, database_url: str
) -> None:
    app = app_for_people(make_app)
    Person(app, upstream, "ann").ask(model="my-own-model")
    Person(app, upstream, "root").read("/usage")
    configure(providers=[])
    status, detail = findings()["prices"]
    assert (status, "my-own-model" in detail) == ("warn", True)


def test_a_log_folder_without_room_or_rights_is_told(
    configure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spool").mkdir()
    configure(providers=[])
    usage = shutil.disk_usage(tmp_path)
    for free, expected in ((10 << 20, "fail"), (200 << 20, "warn"), (2 << 30, "ok")):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: usage._replace(free=free))
        assert findings()["log folder"][0] == expected
    (tmp_path / "file").touch()
    configure(providers=[], spool_dir=str(tmp_path / "file"))
    assert findings()["log folder"][0] == "fail"


def test_a_log_folder_in_memory_is_told(configure: Any, tmp_path: Path) -> None:
    if not Path("/dev/shm").is_dir():
        pytest.skip("this machine has no folder in memory")
    folder = Path("/dev/shm") / f"aibridge-{tmp_path.name}"
    folder.mkdir()
    try:
        configure(providers=[], spool_dir=str(folder))
        status, detail = findings()["log folder"]
    finally:
        folder.rmdir()
    assert (status, "in memory" in detail) == ("warn", True)


def test_redis_is_asked(configure: Any, tmp_path: Path) -> None:
    configure(providers=[], redis_url="redis://:canary@127.0.0.1:9/0")
    told = run("--json")
    found = {each["check"]: each for each in json.loads(told.output)}
    assert (found["redis"]["status"], "canary" in told.output) == ("fail", False)
    server = RedisServer(tmp_path)
    try:
        configure(providers=[], redis_url=server.url)
        assert findings()["redis"] == ("ok", "it answers")
    finally:
        server.halt()


def test_tools_that_an_api_refuses_are_named(configure: Any, docs: ScriptedMcp) -> None:
    servers = [{"name": "docs", "url": docs.url}, {"name": "gone", "url": "http://127.0.0.1:9/mcp"}]
    configure(providers=[], mcp_servers=servers)
    found = findings()
    assert found["MCP server docs"] == ("ok", "it has 1 tools")
    assert found["MCP server gone"][0] == "fail"


def test_a_proxy_that_refuses_large_requests_is_found(
    configure: Any, server: Server, upstream: Upstream, tmp_path: Path
) -> None:
    configure()
    upstream.handler = lambda received: [http_response(200, b"{}")]
    assert findings(f"--url={server.root}")["url size"] == ("ok", "requests of 16 MiB pass")
    assert findings("--url=http://127.0.0.1:9")["url"][0] == "fail"
    site = f"server {{{{ listen {{port}}; location / {{{{ proxy_pass {server.root}; }}}} }}}}"
    nginx = Nginx(tmp_path, site.replace("{{", "{").replace("}}", "}"))
    try:
        assert findings(f"--url=http://127.0.0.1:{nginx.port}")["url size"][0] == "fail"
    finally:
        nginx.stop()
    assert {request.method for request in upstream.requests} == {"GET"}


@pytest.mark.parametrize(
    ("models", "status"), [(["claude-opus-*"], "warn"), (["claude-*"], "ok"), (["gpt-5"], "ok")]
)
def test_a_rule_should_allow_what_claude_code_asks_beside(
    configure: Any, upstream: Upstream, models: list[str], status: str
) -> None:
    upstream.enqueue(http_response(200, b'{"data":[]}'))
    configure(rule=[{"scope": {"group": "interns"}, "models": models}])
    assert findings()["rules"][0] == status
