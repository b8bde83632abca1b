"""`aibridge demo`: what it prints, what its history has, and that it leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import anthropic
import openai
import pytest
import requests
from click.testing import CliRunner

from aibridge_flask.cli import aibridge
from aibridge_flask.cli.demo.past import write_log
from aibridge_flask.records.recorder import Recorder
from tests.conftest import MakeApp
from tests.support.server import PREFIX, ROOT, free_port, wait_until

_SECONDS = 240  # then a test that hangs is ended


class Demo:
    """A running demonstration, with its temporary files in `folder`."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}{PREFIX}"
        command = [sys.executable, "-m", "aibridge_flask", "demo", "--port", str(self.port), "--days", "2"]
        self.process = subprocess.Popen(
            [*command, *options],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "TMPDIR": str(folder),
                "AIBRIDGE_CONFIG": "/nowhere",
                "HTTP_PROXY": "http://127.0.0.1:9",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._watchdog = threading.Timer(_SECONDS, self.process.kill)
        self._watchdog.start()

    def read_until(self, text: str) -> str:
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if text in line:
                return "".join(lines)
        raise AssertionError("".join(lines))

    def end(self, *signals: signal.Signals) -> tuple[int, str]:
        for number in signals:
            self.process.send_signal(number)
        output, _ = self.process.communicate()
        self._watchdog.cancel()
        return self.process.returncode, output

    def left_over(self) -> list[str]:
        """Files, and processes whose environment or command names the folder."""
        tree = os.walk(self.folder)  # which may be deleted meanwhile
        files = [f"{folder}/{name}" for folder, folders, names in tree for name in (*folders, *names)]
        processes = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                about = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                is_zombie = b") Z " in (entry / "stat").read_bytes()
                if str(self.folder).encode() in about and not is_zombie:
                    processes.append(f"{entry.name} {about[:80]!r}")
        return files + processes


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Demo, str]]:
    """A demonstration, and what it has printed up to the address. It is ended by SIGINT, and by more of them."""
    demo = Demo(tmp_path_factory.mktemp("demo"))
    yield demo, demo.read_until("Ctrl-C")
    code, _ = demo.end(signal.SIGINT, signal.SIGINT, signal.SIGTERM)
    assert code == 0
    assert demo.left_over() == []


def test_it_says_once_where_the_dashboard_is(running: tuple[Demo, str]) -> None:
    demo, text = running
    lines = text.splitlines()
    assert [line for line in lines if line.startswith("Dashboard:")] == [f"Dashboard: {demo.url}/ui/"]
    assert max(len(line) for line in lines if "http" not in line) <= 80
    assert requests.get(f"{demo.url}/ui/", timeout=20).status_code == 200


def test_its_answers_are_those_of_each_api(running: tuple[Demo, str]) -> None:
    demo, _ = running
    claude = anthropic.Anthropic(base_url=f"{demo.url}/anthropic", auth_token="aib_demo", api_key=None)
    hello = [{"role": "user", "content": "Hello you"}]
    message = claude.messages.create(model="claude-test-1", max_tokens=99, messages=hello)
    with claude.messages.stream(model="claude-test-1", max_tokens=99, messages=hello) as stream:
        streamed = stream.get_final_text()
    client = openai.OpenAI(base_url=f"{demo.url}/openai/v1", api_key="aib_demo")
    chat = client.chat.completions.create(model="gpt-5-mini", messages=hello)
    chunks = client.chat.completions.create(model="gpt-5-mini", messages=hello, stream=True)
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    response = client.responses.create(model="gpt-5-codex", input="Hello you")
    with client.responses.stream(model="gpt-5-codex", input="Hello you") as events:
        final = events.get_final_response().output_text
    texts = [message.content[0].text, streamed, chat.choices[0].message.content, "".join(pieces),
             response.output_text, final]  # fmt: skip
    assert all("Hello you" in text for text in texts)
    assert claude.messages.count_tokens(model="m", messages=hello).input_tokens > 0
    assert [model.id for model in claude.models.list()]


def test_who_asks_is_local_or_one_of_its_people(running: tuple[Demo, str]) -> None:
    demo, _ = running
    local = requests.get(f"{demo.url}/me", timeout=20).json()
    bo = requests.get(f"{demo.url}/me", headers={"X-Demo-Person": "bo@example.com"}, timeout=20).json()
    assert (local["id"], local["admin"]) == ("local", True)
    assert (bo["id"], bo["groups"], bo["admin"]) == ("bo@example.com", ["backend"], False)
    unknown = requests.get(f"{demo.url}/me", headers={"X-Demo-Person": "root"}, timeout=20)
    assert unknown.status_code == 401


def test_it_has_limits_that_count_its_history(running: tuple[Demo, str]) -> None:
    demo, _ = running
    limits = requests.get(f"{demo.url}/limits", timeout=20).json()["results"]
    assert {limit["source"] for limit in limits} == {"file"}
    assert any(used["spent"] for limit in limits for used in limit["used"])


def test_its_people_go_on_working(running: tuple[Demo, str]) -> None:
    demo, _ = running
    begin = datetime.now(UTC).isoformat()

    def has_come() -> bool:
        q = {"q": f"started_after:{begin}", "limit": 5}
        results = requests.get(f"{demo.url}/interceptions", params=q, timeout=20).json()["results"]
        return any(
            result["ended_at"] and result["initiator_id"].endswith("@example.com") for result in results
        )

    wait_until(has_come)


def test_once_ends_by_itself(tmp_path: Path) -> None:
    demo = Demo(tmp_path, "--once")
    code, output = demo.end()
    assert code == 0, output
    assert output.count("Dashboard: http") == 1
    assert demo.left_over() == []


def test_a_signal_at_the_start_leaves_nothing(tmp_path: Path) -> None:
    demo = Demo(tmp_path)
    demo.read_until("Making up")
    assert demo.end(signal.SIGTERM)[0] == 0
    assert demo.left_over() == []


def test_its_bridge_ends_if_it_is_killed(tmp_path: Path) -> None:
    demo = Demo(tmp_path)
    demo.read_until("Ctrl-C")
    demo.end(signal.SIGKILL)
    wait_until(lambda: demo.left_over() == [])


def test_a_busy_port_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(aibridge, ["demo", "--port", str(port)])
    assert result.exit_code == 1
    assert f"port {port}" in result.stderr
    assert "--port" in result.stderr


def test_its_history_is_varied_and_its_sums_are_right(
    make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app()
    settings = app.config["AIBRIDGE_SETTINGS"]
    folder = Path(settings.spool_dir)
    folder.mkdir(mode=0o700)
    written = write_log(folder, 3, datetime.now(UTC))
    recorder = Recorder(settings)
    recorder.start()
    wait_until(lambda: recorder.backlog().bytes == 0)
    recorder.close()
    client = app.test_client()

    def values(key: str) -> set[str]:
        rows = client.get(f"{PREFIX}/usage", query_string={"group_by": key}).get_json()["results"]
        return {row[key] for row in rows}

    assert client.get(f"{PREFIX}/usage").get_json()["totals"]["requests"] == written
    for key, least in {
        "day": 3,
        "initiator": 3,
        "group": 3,
        "client": 3,
        "model": 3,
        "error_type": 3,
    }.items():
        assert len(values(key)) >= least, key
    assert client.get(f"{PREFIX}/usage").get_json()["totals"]["unpriced_requests"] > 0
    monkeypatch.setenv("AIBRIDGE_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("AIBRIDGE_SPOOL_DIR", settings.spool_dir)
    checked = CliRunner().invoke(aibridge, ["db", "check", "--json"])
    assert checked.exit_code == 0, checked.output
    assert json.loads(checked.stdout)["differences"] == []
