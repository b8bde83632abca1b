"""`aibridge config check` says whether the server would start, and what the prices leave open."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from aibridge_flask.cli import aibridge
from aibridge_flask.errors import ConfigError


def check(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> Result:
    path = folder / "aibridge.toml"
    path.write_text(text)
    monkeypatch.setenv("AIBRIDGE_CONFIG", str(path))
    return CliRunner().invoke(aibridge, ["config", "check", *options])


def test_a_right_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    providers = "[[providers]]\ntype = 'openai'\n"
    whole = "[prices.whole]\ninput = 1\noutput = 2\ncache_read = 0.1\ncache_write = 1.2\ncache_write_1h = 2\n"
    told = check(
        providers + whole + '[prices."open-*"]\ninput = 1\noutput = 2\ncache_write = 3\n',
        tmp_path,
        monkeypatch,
    )
    assert (told.exit_code, told.output.splitlines()) == (
        0,
        [
            "prices.open-*.cache_read: not set, it costs what input costs",
            "prices.open-*.cache_write_1h: not set, it costs what cache_write costs",
            "The configuration is right.",
        ],
    )


def test_a_copilot_without_prices_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = check("[[providers]]\ntype = 'copilot'\n", tmp_path, monkeypatch)
    assert told.output.startswith("copilot: its tokens have no list price")


def test_a_wrong_configuration_names_its_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = check("[prices.m]\ninput = 'cheap'\n", tmp_path, monkeypatch)
    assert isinstance(told.exception, ConfigError)
    assert "prices.m.input: " in told.exception.message
    assert "prices.m.output: " in told.exception.message


@pytest.mark.parametrize(
    ("text", "exit_code", "found"),
    [
        ("[[providers]]\ntype = 'openai'\n", 0, []),
        ("[[providers]]\ntype = 'copilot'\n", 0, [("copilot", "warn")]),
        ("[prices.m]\ninput = 'a: b'\n", 1, [("prices.m.input", "fail"), ("prices.m.output", "fail")]),
        ("=", 1, [("AIBRIDGE_CONFIG", "fail")]),
    ],
)
def test_all_that_is_found_is_json(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    exit_code: int,
    found: list[tuple[str, str]],
) -> None:
    told = check(text, tmp_path, monkeypatch, "--json")
    each = json.loads(told.output)
    assert (told.exit_code, sorted((one["setting"], one["status"]) for one in each)) == (exit_code, found)
    assert all(one["detail"] for one in each)
