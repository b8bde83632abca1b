"""The toolbox against real servers of the official package and of fastmcp."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anthropic
import pytest

from aibridge_flask import config
from aibridge_flask.tools import ToolBox
from aibridge_flask.waiting import UNWATCHED
from tests.conftest import Start
from tests.support import claude
from tests.support.server import ROOT, free_port, wait_until
from tests.support.streams import get_status
from tests.support.upstream import Upstream

KINDS = ("mcp", "json", "stateless", "fastmcp")
NAMES = {"add", "fail", "meet", "wait", "grow"}


class RealServer:
    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.port = kind, free_port()
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        self.notes = folder / f"{kind}-notes"
        self.log = folder / f"{kind}-log"
        self.start()

    def start(self) -> None:
        self.notes.write_text("")
        command = [
            sys.executable,
            "-m",
            "tests.support.tool_server",
            self.kind,
            str(self.port),
            str(self.notes),
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    def wait(self) -> RealServer:
        wait_until(self._listens)
        return self

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def real_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RealServer]]:
    folder = tmp_path_factory.mktemp("mcp")
    servers = {kind: RealServer(kind, folder) for kind in KINDS}
    try:
        yield {kind: server.wait() for kind, server in servers.items()}
    finally:
        for server in servers.values():
            server.kill()


def settings(servers: list[RealServer], **mcp: object) -> dict[str, object]:
    named = [{"name": server.kind, "url": server.url} for server in servers]
    return {"mcp_servers": named, "mcp": mcp}


@pytest.mark.parametrize("mode", ["threads", "gevent"])
def test_tools_of_all_kinds_of_servers(
    real_servers: dict[str, RealServer], tmp_path: Path, mode: str
) -> None:
    """In a process that gevent has patched, and in one that it has not."""
    for server in real_servers.values():
        server.notes.write_text("")
    tree = settings(list(real_servers.values()))
    notes = {kind: str(server.notes) for kind, server in real_servers.items()}
    process = subprocess.run(
        [sys.executable, "-m", "tests.support.tool_driver", mode, json.dumps(tree), json.dumps(notes)],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    report = json.loads(process.stdout)
    assert report["patched"] is (mode == "gevent")
    assert "Traceback" not in process.stderr
    for kind in KINDS:
        results = report[kind]
        assert set(results["names"]) >= NAMES
        assert results["schema"]["required"] == ["a", "b"]
        assert results["add"] == [[{"type": "text", "text": "3"}], {"result": 3}, False, ""]
        assert results["wrong"][2] is True
        assert results["fail"][2:] == [True, ""]
        assert "it went wrong" in results["fail"][0][0]["text"]
        assert results["met"] == ["met"] * 4
        assert results["disconnected"] is True


@pytest.mark.parametrize("streaming", [True, False])
def test_a_model_uses_the_tools_and_the_client_sees_one_message(
    real_servers: dict[str, RealServer], start: Start, upstream: Upstream, streaming: bool
) -> None:
    server = start(**settings([real_servers["mcp"], real_servers["fastmcp"]]))
    server.wait_ready("/readyz")
    calls = [claude.use("a", "bmcp_mcp_add", a=1, b=2), claude.use("b", "bmcp_fastmcp_fail")]
    upstream.enqueue(*claude.steps(claude.message("msg_1", *calls, stop="tool_use"), streaming))
    upstream.enqueue(*claude.steps(claude.message("msg_2", claude.text("It is 3.")), streaming))
    ask = {"model": claude.MODEL, "max_tokens": 9, "messages": [{"role": "user", "content": "1 + 2?"}]}
    with anthropic.Anthropic(base_url=f"{server.url}/anthropic", api_key="aib_0123456789") as client:
        if streaming:
            with client.messages.stream(**ask) as stream:
                message = stream.get_final_message()
        else:
            message = client.messages.create(**ask)
    assert [block.text for block in message.content] == ["It is 3."]
    first, second = (json.loads(received.body) for received in upstream.requests)
    names = {tool["name"] for tool in first["tools"]}
    assert names >= {f"bmcp_{kind}_{name}" for kind in ("mcp", "fastmcp") for name in NAMES}
    added, failed = second["messages"][-1]["content"]
    assert added == {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "3"}]}
    assert failed["is_error"] is True
    assert "it went wrong" in failed["content"][0]["text"]


@pytest.mark.parametrize("kind", ["mcp", "fastmcp"])
def test_a_server_announces_new_tools(real_servers: dict[str, RealServer], kind: str) -> None:
    box = ToolBox(config.load(settings([real_servers[kind]])))
    wait_until(lambda: box.ready)
    for _ in range(2):
        before = box.tools
        name = box.call(f"bmcp_{kind}_grow", "{}", UNWATCHED).content[0]["text"]
        wait_until(lambda before=before: box.tools != before)
        assert box.call(f"bmcp_{kind}_{name}", "", UNWATCHED).content[0]["text"] == name
    box.close()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RealServer]:
    server = RealServer("mcp", tmp_path)
    try:
        yield server.wait()
    finally:
        server.kill()


def test_a_server_comes_back_after_a_restart(
    own_server: RealServer, caplog: pytest.LogCaptureFixture
) -> None:
    box = ToolBox(config.load(settings([own_server])))
    wait_until(lambda: box.ready)
    assert len(box.tools) == len(NAMES)
    own_server.kill()
    result = box.call("bmcp_mcp_add", '{"a":1,"b":2}', UNWATCHED)
    assert (result.is_error, result.error) == (True, "the MCP server could not be reached")
    wait_until(lambda: box.tools == ())
    own_server.start()
    wait_until(lambda: len(box.tools) == len(NAMES))
    assert box.call("bmcp_mcp_add", '{"a":1,"b":2}', UNWATCHED).structured == {"result": 3}
    levels = [record.levelname for record in caplog.records if record.name == "aibridge.tools"]
    assert [level for level in levels if level != "INFO"] == ["WARNING"]
    box.close()


def test_the_toolbox_works_under_gunicorn(start: Start, own_server: RealServer) -> None:
    server = start(mcp_servers=[{"name": "docs", "url": own_server.url}])
    wait_until(lambda: get_status(server, "/readyz") == 200)
    assert "session" in own_server.log.read_text()
    server.stop_cleanly()
    wait_until(lambda: '"DELETE /mcp HTTP/1.1" 200' in own_server.log.read_text())
