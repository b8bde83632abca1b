"""Configuration: sources, precedence, and errors that stop the start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aibridge_flask import ConfigError, config


@pytest.fixture
def write_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes the configuration file and names it in the environment."""

    def write(text: str) -> None:
        (tmp_path / "aibridge.toml").write_text(text)
        monkeypatch.setenv("AIBRIDGE_CONFIG", str(tmp_path / "aibridge.toml"))

    return write


def test_without_configuration_there_are_three_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    settings = config.load({})
    assert [provider.name for provider in settings.providers] == ["anthropic", "openai", "copilot"]
    assert [bool(provider.keys) for provider in settings.providers] == [False, True, False]
    assert settings.url_prefix == "/api/v2/aibridge"
    assert settings.auth.mode == "local"


def test_environment_overrides_host_overrides_file(
    write_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(
        'max_body_bytes = 1\nread_timeout = 1\nconnect_timeout = 1\n[auth]\nbyok = "reject"\nactor_header = "X-A"\n'
    )
    monkeypatch.setenv("AIBRIDGE_MAX_BODY_BYTES", "3")
    monkeypatch.setenv("AIBRIDGE_AUTH__BYOK", "ignore")
    settings = config.load({"max_body_bytes": 2, "read_timeout": 2, "auth": {"byok": "allow"}})
    assert (settings.max_body_bytes, settings.read_timeout, settings.connect_timeout) == (3, 2, 1)
    assert (settings.auth.byok, settings.auth.actor_header) == ("ignore", "X-A")


def test_environment_values_get_their_settings_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIBRIDGE_RECORDS__PROMPTS", "false")
    monkeypatch.setenv("AIBRIDGE_KEEPALIVE_INTERVAL", "2.5")
    monkeypatch.setenv("AIBRIDGE_SPOOL_DIR", "7")
    monkeypatch.setenv("AIBRIDGE_AUTH__ADMIN_ACTORS", "ann, bob")
    settings = config.load({})
    assert settings.records.prompts is False
    assert settings.keepalive_interval == 2.5
    assert settings.spool_dir == "7"
    assert settings.auth.admin_actors == ("ann", "bob")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AIBRIDGE_AUTH", "x"),
        ("AIBRIDGE_PROVIDERS", "x"),
        ("AIBRIDGE_MAX_BODY_BYTES", "many"),
        ("AIBRIDGE_RECORDS__PROMPTS", "maybe"),
    ],
)
def test_a_wrong_environment_variable_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=name):
        config.load({})


def test_variables_that_name_no_setting_warn_in_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    names = [
        "AIBRIDGE_",
        "AIBRIDGE_AUTH_MODE",
        "AIBRIDGE_AUTH__NONSENSE",
        "AIBRIDGE_LOGS__LEVEL__X",
        "AIBRIDGE_PORT",
        "AIBRIDGE_PORT_80_TCP_ADDR",
        "AIBRIDGE_REDIS_PORT_6379_TCP",
        "AIBRIDGE_REDIS_SERVICE_HOST",
        "AIBRIDGE_SERVICE_PORT",
    ]
    for name in names:
        monkeypatch.setenv(name, "tcp://canary:80")
    monkeypatch.setenv("AIBRIDGE_REDIS_URL", "redis://10.0.0.2")
    assert config.load({}).redis_url == "redis://10.0.0.2"
    config.load({})
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.endswith(": " + ", ".join(names))
    assert "canary" not in line
    assert "\n" not in line


@pytest.mark.parametrize("name", ["aibridge.toml", "aibridge.json"])
def test_a_byte_order_mark_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    text = {"aibridge.toml": "max_retries = 3", "aibridge.json": '{"max_retries": 3}'}[name]
    (tmp_path / name).write_text(text, "utf-8-sig")
    monkeypatch.setenv("AIBRIDGE_CONFIG", str(tmp_path / name))
    assert config.load({}).max_retries == 3


def test_a_byte_order_mark_before_a_secret_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-1", "utf-8-sig")
    (provider,) = config.load(
        {"providers": [{**PROVIDER, "keys": [{"file": str(tmp_path / "key")}]}]}
    ).providers
    assert provider.keys[0].value == "sk-1"


@pytest.mark.parametrize(
    "url",
    [
        "http://h", "REDIS://h", "redis:h", "redis:// h", "unix:/socket", "redis://h:port", "redis://h:99999",
        "redis://h/x", "redis://h/-1", "redis://h/0/1", "redis://h/0#1", "redis://h?db=x", "redis://h?db=-1",
        "redis://h?nonsense=1", "redis://h?socket_timeout=soon", "rediss://h?ssl_cert_reqs=maybe",
        "redis://user:pa/ss@h",
    ],
)  # fmt: skip
def test_a_redis_url_that_the_client_refuses_stops_the_start(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^redis_url: ") as caught:
        config.load({"redis_url": url})
    assert url not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["redis://h", "redis://h/", "redis://:p%40ss@[::1]:1/2", "rediss://u:p@h?socket_timeout=2", "redis://h?db=2", "unix:///s?db=2"],
)  # fmt: skip
def test_a_redis_url_is_accepted_as_the_client_accepts_it(url: str) -> None:
    assert config.load({"redis_url": url}).redis_url == url


PROVIDER = {"type": "openai"}


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"nonsense": 1}, "nonsense: "),
        ({"auth": {"nonsense": 1}}, "auth.nonsense: "),
        ({"max_body_bytes": "33554432"}, "max_body_bytes: "),
        ({"max_body_bytes": True}, "max_body_bytes: "),
        ({"max_body_bytes": 0}, "max_body_bytes: "),
        ({"keepalive_interval": "10"}, "keepalive_interval: "),
        ({"keepalive_interval": float("inf")}, "keepalive_interval: "),
        ({"auth": {"mode": "open"}}, "auth.mode: one of local, token, header"),
        ({"auth": {"trusted_proxies": ["10.0.0.0/99"]}}, "auth.trusted_proxies: "),
        ({"records": {"prompts": "yes"}}, "records.prompts: "),
        ({"url_prefix": ""}, "url_prefix: a path such as"),
        ({"url_prefix": "/"}, "url_prefix: "),
        ({"url_prefix": "/a//b"}, "url_prefix: "),
        ({"url_prefix": "/a b"}, "url_prefix: "),
        ({"url_prefix": "/<a>"}, "url_prefix: "),
        ({"url_prefix": "api"}, "url_prefix: "),
        ({"url_prefix": "/api/"}, "url_prefix: "),
        ({"url_prefix": "/a/../b"}, "url_prefix: "),
        ({"database_url": "mysql://x"}, "database_url: "),
        ({"redis_prefix": ""}, "redis_prefix: "),
        ({"proxy": "socks5://x"}, "proxy: "),
        ({"providers": [{"type": "gemini"}]}, "providers[0].type: "),
        ({"providers": [{}]}, "providers[0].type: "),
        ({"providers": [{**PROVIDER, "name": "Bad"}]}, "providers[0].name: "),
        ({"providers": [{**PROVIDER, "name": "a--b"}]}, "providers[0].name: "),
        ({"providers": [{**PROVIDER, "name": "sessions"}]}, "providers[0].name: 'sessions' is a reserved word"),
        ({"providers": [PROVIDER, PROVIDER]}, "providers[1].name: 'openai' stands there twice"),
        ({"providers": [{**PROVIDER, "base_url": "api.openai.com"}]}, "providers[0].base_url: "),
        ({"providers": [{**PROVIDER, "base_url": "https://x/v1?a=b"}]}, "providers[0].base_url: "),
        ({"providers": [{**PROVIDER, "base_url": "https://x/#f"}]}, "providers[0].base_url: "),
        ({"providers": [{**PROVIDER, "base_url": "https://"}]}, "providers[0].base_url: "),
        ({"providers": [{**PROVIDER, "base_url": "https://x:99999"}]}, "providers[0].base_url: "),
        ({"providers": [{**PROVIDER, "keys": [{"value": "ok"}, {"env": "NOT_SET_ANYWHERE"}]}]}, "providers[0].keys[1]: the environment variable NOT_SET_ANYWHERE"),
        ({"providers": [{**PROVIDER, "keys": [{"file": "/nonexistent/key"}]}]}, "providers[0].keys[0]: the file /nonexistent/key"),
        ({"providers": [{**PROVIDER, "keys": [{"value": "two\nlines"}]}]}, "providers[0].keys[0]: "),
        ({"providers": [{**PROVIDER, "keys": ["sk-plain"]}]}, "providers[0].keys[0]: "),
        ({"providers": [{"type": "copilot", "keys": [{"value": "x"}]}]}, "providers[0].keys: "),
        ({"providers": [{"type": "bedrock"}]}, "providers[0].aws: "),
        ({"providers": [{**PROVIDER, "circuit_breaker": {"max_requests": 0}}]}, "providers[0].circuit_breaker.max_requests: "),
        ({"mcp_servers": [{"name": "a", "url": "x"}]}, "mcp_servers[0].url: "),
        ({"mcp_servers": [{"name": "a", "url": "http://x", "allow": "("}]}, "mcp_servers[0].allow: "),
        ({"prices": {"m": {"input": 1}}}, "prices.m.output: "),
    ],
)  # fmt: skip
def test_a_wrong_setting_stops_the_start_with_its_path(tree: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(tree)
    assert expected in str(caught.value)
    assert "sk-plain" not in str(caught.value)


def test_a_file_that_cannot_be_read_stops_the_start(
    write_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config("this is = = no TOML")
    with pytest.raises(ConfigError, match="is not TOML"):
        config.load({})
    (tmp_path / "list.json").write_text("[]")
    monkeypatch.setenv("AIBRIDGE_CONFIG", str(tmp_path / "list.json"))
    with pytest.raises(ConfigError, match="holds no object"):
        config.load({})
    monkeypatch.setenv("AIBRIDGE_CONFIG", "/nonexistent.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load({})


def test_settings_of_a_provider_fall_back_on_the_global_ones(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-from-file\n")
    first, second = config.load(
        {
            "max_retries": 2,
            "proxy": "http://proxy:1",
            "providers": [
                {**PROVIDER, "keys": [{"file": str(tmp_path / "key")}]},
                {**PROVIDER, "name": "b", "max_retries": 0, "proxy": ""},
            ],
        }
    ).providers
    assert (first.max_retries, first.proxy, first.keys[0].value) == (2, "http://proxy:1", "sk-from-file")
    assert (second.max_retries, second.proxy) == (0, "")


def test_repr_of_settings_shows_no_secret() -> None:
    settings = config.load(
        {
            "database_url": "postgresql+psycopg://me:canary-1@host/db",
            "redis_url": "redis://:canary-2@host/0",
            "proxy": "http://me:canary-3@proxy:1",
            "providers": [{**PROVIDER, "keys": [{"value": "canary-4"}]}],
            "mcp_servers": [
                {"name": "a", "url": "http://x", "headers": {"Authorization": {"value": "canary-5"}}}
            ],
        }
    )
    assert "canary" not in repr(settings)


def test_the_page_lists_every_setting() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "configuration.md").read_text()
    rows = "\n".join(
        f"| `{name}` | {default} | {meaning} |" for name, default, meaning in config.settings_table()
    )
    assert rows in page
