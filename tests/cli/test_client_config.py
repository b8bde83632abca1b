"""`aibridge client-config` tells what to set where, and writes it into the clients' own files."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from aibridge_flask.cli import aibridge
from aibridge_flask.client_config.files import FILES
from aibridge_flask.client_config.guides import CLIENTS
from tests.support.server import PREFIX, Server
from tests.support.upstream import Upstream, http_response

ROOT = "https://ai.example.com"
ANTHROPIC, OPENAI = f"{ROOT}{PREFIX}/anthropic", f"{ROOT}{PREFIX}/openai/v1"
TOKEN = "aib_" + "t" * 40
NAMED = [
    "claude-code",
    "claude-desktop",
    "codex",
    "opencode",
    "zed",
    "cline",
    "roo",
    "kilo",
    "continue",
    "aider",
    "goose",
    "crush",
    "copilot-cli",
    "vscode-copilot",
    "jetbrains",
    "junie",
    "factory",
    "cursor",
    "vercel",
    "langchain",
    "llm",
    "anthropic-sdk",
    "openai-sdk",
]
PATHS = {
    "claude-code": ".claude/settings.json",
    "codex": ".codex/config.toml",
    "opencode": ".config/opencode/opencode.json",
    "crush": ".config/crush/crush.json",
}
COMMENTED = (
    '// mine\n{\n  // kept\n  "theme": "dark",\n  "%s": {\n    "mine": {"a": [1, 2]} // too\n  },\n}\n'
)
CODEX = '# mine\nmodel = "gpt-5"  # kept\n\n[tools]\nweb_search = true\n\n[model_providers.other]\nname = "Other"\n'


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("CLAUDE_CONFIG_DIR", "CODEX_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(aibridge, ["client-config", *arguments])


def write(client: str, *arguments: str) -> Result:
    return run(client, f"--base-url={ROOT}", f"--token={TOKEN}", "--write", *arguments)


def values_of(path: Path) -> object:
    return tomllib.loads(path.read_text()) if path.suffix == ".toml" else json.loads(path.read_text())


def test_all_clients_are_listed() -> None:
    assert list(CLIENTS) == NAMED
    assert [line.split()[0] for line in run().output.splitlines()[: len(NAMED)]] == NAMED
    assert list(json.loads(run("--json").output)) == NAMED
    assert run("emacs").exit_code == 2
    assert run("codex", "--base-url=ai.example.com").exit_code == 2


@pytest.mark.parametrize("client", NAMED)
def test_a_guide_names_the_address_and_where_it_belongs(client: str) -> None:
    told = run(client, f"--base-url={ROOT}/").output
    assert ANTHROPIC in told or f"{ROOT}{PREFIX}/openai" in told
    assert "<" not in told
    assert json.loads(run(client, "--json").output)["where"] in told


def test_providers_have_the_names_of_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "aibridge.toml"
    text = '[auth]\nmode = "token"\n[[providers]]\ntype = "openai"\nenabled = false\n'
    file.write_text(f'{text}[[providers]]\ntype = "openai"\nname = "gateway"\n')
    monkeypatch.setenv("AIBRIDGE_CONFIG", str(file))
    told = run("openai-sdk").output
    assert f"http://127.0.0.1:8080{PREFIX}/gateway/v1" in told
    assert "aibridge token create" in told
    assert run("claude-code", "--write", f"--token={TOKEN}").exit_code == 1
    assert run("codex", "--write").exit_code == 2


@pytest.mark.parametrize("client", PATHS)
def test_a_file_is_made_for_its_owner_alone_and_not_changed_again(client: str, home: Path) -> None:
    assert write(client).exit_code == 0
    path = home / PATHS[client]
    assert path.stat().st_mode & 0o777 == 0o600
    assert TOKEN in path.read_text()
    values_of(path)
    before = path.read_bytes()
    assert "nothing was changed" in write(client).output
    told = json.loads(write(client, "--json").output)
    assert told == {"path": str(path), "is_changed": False, "backup": ""}
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("client", "text", "kept"),
    [
        (
            "claude-code",
            COMMENTED % "env",
            ["// mine", "// kept", '"theme": "dark"', '{"a": [1, 2]}, // too'],
        ),
        ("claude-code", '{\r\n\t"env": {"X": "1"}\r\n}\r\n', ['{\r\n\t"env": {"X": "1"', "\r\n}\r\n"]),
        ("claude-code", "", []),
        ("opencode", COMMENTED % "provider", ["// mine", "// kept", '"theme": "dark"', "// too"]),
        ("crush", COMMENTED % "providers", ["// mine", "// kept", '"theme": "dark"', "// too"]),
        ("codex", CODEX, ["# mine", 'model = "gpt-5"  # kept', "web_search = true", 'name = "Other"']),
    ],
)
def test_other_keys_and_comments_are_kept_and_there_is_a_copy(
    client: str, text: str, kept: list[str], home: Path
) -> None:
    path = home / PATHS[client]
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode())
    assert write(client).exit_code == 0
    written = path.read_bytes().decode()
    assert [part for part in kept if part not in written] == []
    assert TOKEN in written
    (backup,) = path.parent.glob("*.bak")
    assert backup.read_bytes().decode() == text
    assert run(client, f"--base-url={ROOT}", "--token=aib_other", "--write").exit_code == 0
    assert path.read_bytes().decode() == written.replace(TOKEN, "aib_other")


def test_what_is_written_is_what_the_clients_read(home: Path) -> None:
    for client in PATHS:
        write(client)
    claude, codex, opencode, crush = (values_of(home / path) for path in PATHS.values())
    assert claude == {"env": {"ANTHROPIC_BASE_URL": ANTHROPIC, "ANTHROPIC_AUTH_TOKEN": TOKEN}}
    provider = {"name": "AI Bridge", "base_url": OPENAI, "wire_api": "responses"}
    provider["http_headers"] = {"X-AIBridge-Token": TOKEN}
    assert codex == {"model_provider": "aibridge", "model_providers": {"aibridge": provider}}
    assert opencode == {
        "provider": {
            "anthropic": {"options": {"baseURL": f"{ANTHROPIC}/v1", "apiKey": TOKEN}},
            "openai": {"options": {"baseURL": OPENAI, "apiKey": TOKEN}},
        }
    }
    assert crush == {
        "providers": {
            "aibridge-anthropic": {"type": "anthropic", "base_url": ANTHROPIC, "api_key": TOKEN},
            "aibridge-openai": {"type": "openai", "base_url": OPENAI, "api_key": TOKEN},
        }
    }


@pytest.mark.parametrize(
    ("client", "text"),
    [
        ("claude-code", "{"),
        ("claude-code", '{"env": 1}'),
        ("codex", "a = "),
        ("codex", "model_providers = 1"),
    ],
)
def test_a_file_that_cannot_be_read_stays_as_it_is(client: str, text: str, home: Path) -> None:
    path = home / PATHS[client]
    path.parent.mkdir(parents=True)
    path.write_text(text)
    told = write(client)
    assert (told.exit_code, path.read_text()) == (1, text)
    assert str(path) in told.output


def test_other_clients_have_no_file(home: Path) -> None:
    assert set(FILES) == set(PATHS)
    assert write("zed").exit_code == 1
    assert list(home.iterdir()) == []


def test_a_link_stays_a_link(home: Path) -> None:
    path, target = home / PATHS["claude-code"], home / "dotfiles.json"
    path.parent.mkdir()
    target.write_text("{}")
    path.symlink_to(target)
    assert write("claude-code").exit_code == 0
    assert path.is_symlink()
    assert TOKEN in target.read_text()


@pytest.fixture(scope="module")
def answers() -> dict[str, bytes]:
    usage = {"input_tokens": 3, "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "model": "claude-haiku-4-5", "content": [], "usage": usage}
    response = {"id": "resp_1", "model": "gpt-5-mini", "status": "completed", "output": [], "usage": usage}
    return {"/v1/messages": json.dumps(message).encode(), "/v1/responses": json.dumps(response).encode()}


@pytest.mark.parametrize("client", PATHS)
def test_the_check_says_what_has_arrived(
    client: str, server: Server, upstream: Upstream, home: Path, answers: dict[str, bytes]
) -> None:
    upstream.handler = lambda received: [http_response(200, answers[received.target])]
    assert run(client, "--check").exit_code == 1  # nothing was written yet
    told = run(client, f"--base-url={server.root}", "--write", "--check", "--json")
    found = json.loads(told.output.splitlines()[-1])
    assert told.exit_code == 0, found
    checks = ["answer", "client", *(["session"] if client != "crush" else []), "bytes", "cost"]
    assert [each["check"] for each in found] == checks
    upstream.handler = lambda received: [http_response(400, b"{}")]
    assert "FAIL  answer: status 400" in run(client, "--check").output


def test_a_bridge_that_is_away_is_one_line(home: Path) -> None:
    told = run("claude-code", "--base-url=http://127.0.0.1:9", "--write", "--check")
    assert (told.exit_code, told.output.splitlines()[-1]) == (
        1,
        "Error: the bridge does not answer: ConnectionError",
    )
