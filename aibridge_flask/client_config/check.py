"""Sends one small request as a client would, by the settings in its file, and looks at the record of it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import requests

from ..headers import INTERCEPTION_HEADER
from .files import read_values

_SECONDS = 120.0
_ANTHROPIC_MODEL, _OPENAI_MODEL = "claude-haiku-4-5", "gpt-5-mini"
_WORDS = "Say OK."


class NoSettings(Exception):
    """The client's file has no settings of the bridge."""


class Finding(NamedTuple):
    """One thing that was looked at."""

    check: str
    ok: bool
    detail: str


class _Settings(NamedTuple):
    """What the file says. `url` is the base URL of an API, `is_anthropic` says of which."""

    url: str
    token: str
    is_anthropic: bool


class _Sign(NamedTuple):
    """How a client is known: its name in records, and its headers. Empty: it sends no session."""

    name: str
    user_agent: str
    session_header: str


_SIGNS = {
    "claude-code": _Sign("Claude Code", "claude-cli/2.1.0 (external, cli)", "X-Claude-Code-Session-Id"),
    "codex": _Sign("Codex", "codex_cli_rs/0.100.0", "session-id"),
    "opencode": _Sign("OpenCode", "opencode/1.0.0", "X-OpenCode-Session"),
    "crush": _Sign("Charm Crush", "Charm-Crush/1.0.0", ""),
}


def check(client: str, model: str = "") -> list[Finding]:
    """Returns what arrived. Raises NoSettings, CannotWrite, requests.RequestException."""
    try:
        settings = _SETTINGS[client](read_values(client))
    except (KeyError, TypeError, AttributeError):
        raise NoSettings(f"{client}: its file has no settings of the bridge: use --write first") from None
    sign, session = _SIGNS[client], str(uuid.uuid4())
    response = _send(settings, sign, session, model)
    answered = Finding("answer", response.ok, f"status {response.status_code}")
    id = response.headers.get(INTERCEPTION_HEADER, "")
    if not id:
        return [answered, Finding("record", ok=False, detail="the answer is not of a bridge")]
    record = _record(settings, id)
    return [answered, *_findings(record, sign, session)]


def _send(settings: _Settings, sign: _Sign, session: str, model: str) -> requests.Response:
    """Sends no token in a header that the provider could get: the bridge's own header is for it."""
    headers = {"User-Agent": sign.user_agent, "X-AIBridge-Token": settings.token}
    if sign.session_header:
        headers[sign.session_header] = session
    if settings.is_anthropic:
        url, headers["anthropic-version"] = f"{settings.url}/v1/messages", "2023-06-01"
        body: dict[str, Any] = {"model": model or _ANTHROPIC_MODEL, "max_tokens": 1}
        body["messages"] = [{"role": "user", "content": _WORDS}]
    else:
        url, body = f"{settings.url}/responses", {"model": model or _OPENAI_MODEL, "input": _WORDS}
    return requests.post(url, json=body, headers=headers, timeout=_SECONDS)


def _record(settings: _Settings, id: str) -> Mapping[str, Any]:
    root = settings.url.removesuffix("/v1").rpartition("/")[0]
    headers = {"X-AIBridge-Token": settings.token}
    response = requests.get(f"{root}/interceptions/{id}", headers=headers, timeout=_SECONDS)
    response.raise_for_status()
    record: Mapping[str, Any] = response.json()
    return record


def _findings(record: Mapping[str, Any], sign: _Sign, session: str) -> Iterator[Finding]:
    yield Finding("client", record["client"] == sign.name, record["client"])
    if sign.session_header:
        seen = record["client_session_id"]
        yield Finding("session", seen == session, seen or "none seen")
    yield Finding("bytes", bool(record["wire_exact"]), "unchanged" if record["wire_exact"] else "changed")
    micros = record["cost_micros"]
    cost = "no price is known" if micros is None else f"US$ {micros / 1_000_000:.6f}"
    yield Finding("cost", micros is not None, cost)


def _claude_code(values: Any) -> _Settings:
    env = values["env"]
    return _Settings(env["ANTHROPIC_BASE_URL"].rstrip("/"), env["ANTHROPIC_AUTH_TOKEN"], is_anthropic=True)


def _codex(values: Any) -> _Settings:
    provider = values["model_providers"][values["model_provider"]]
    token = provider["http_headers"]["X-AIBridge-Token"]
    return _Settings(provider["base_url"].rstrip("/"), token, is_anthropic=False)


def _opencode(values: Any) -> _Settings:
    providers = values["provider"]
    name = "anthropic" if "baseURL" in providers.get("anthropic", {}).get("options", {}) else "openai"
    options = providers[name]["options"]
    url = options["baseURL"].rstrip("/")
    is_anthropic = name == "anthropic"
    return _Settings(url.removesuffix("/v1") if is_anthropic else url, options["apiKey"], is_anthropic)


def _crush(values: Any) -> _Settings:
    providers = values["providers"]
    name = next(
        each for each in ("aibridge-anthropic", "aibridge-openai", "") if each in providers or not each
    )
    found = providers[name]
    return _Settings(found["base_url"].rstrip("/"), found["api_key"], found["type"] == "anthropic")


_SETTINGS = {"claude-code": _claude_code, "codex": _codex, "opencode": _opencode, "crush": _crush}
