"""Writes the settings of clients into their own files. Other keys and comments keep their place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

from . import jsonc
from .guides import Urls

_NAME = "aibridge"
_OWNER_ONLY = 0o600  # it holds a token
_TOKEN_HEADER = "X-AIBridge-Token"  # noqa: S105 - a header's name
Values = Mapping[tuple[str, ...], object]
"""What to set, by its path."""


class ClientFile(NamedTuple):
    """A client's file; `values` returns what belongs into it."""

    path: Callable[[], Path]
    values: Callable[[Urls, str], Values]
    is_toml: bool = False


class Written(NamedTuple):
    """`backup` is a copy of what was there before; empty: nothing was."""

    path: Path
    is_changed: bool
    backup: str


class CannotWrite(Exception):
    """The file cannot be read or written. The message names it and says why."""


def _home(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / default)


def _opencode_path() -> Path:
    folder = _home("XDG_CONFIG_HOME", ".config") / "opencode"
    plain, commented = folder / "opencode.json", folder / "opencode.jsonc"
    return commented if commented.exists() and not plain.exists() else plain


def _claude_code(urls: Urls, token: str) -> Values:
    return {
        ("env", "ANTHROPIC_BASE_URL"): urls.anthropic,
        ("env", "ANTHROPIC_AUTH_TOKEN"): token,
    }


def _codex(urls: Urls, token: str) -> Values:
    provider = ("model_providers", _NAME)
    return {
        ("model_provider",): _NAME,
        (*provider, "name"): "AI Bridge",
        (*provider, "base_url"): urls.openai,
        (*provider, "wire_api"): "responses",
        (*provider, "http_headers", _TOKEN_HEADER): token,
    }


def _opencode(urls: Urls, token: str) -> Values:
    urls_by_name = {"anthropic": f"{urls.anthropic}/v1" if urls.anthropic else "", "openai": urls.openai}
    return {
        ("provider", name, "options", key): value
        for name, url in urls_by_name.items()
        if url
        for key, value in (("baseURL", url), ("apiKey", token))
    }


def _crush(urls: Urls, token: str) -> Values:
    return {
        ("providers", f"{_NAME}-{name}", key): value
        for name, url in (("anthropic", urls.anthropic), ("openai", urls.openai))
        if url
        for key, value in (("type", name), ("base_url", url), ("api_key", token))
    }


FILES: Mapping[str, ClientFile] = {
    "claude-code": ClientFile(lambda: _home("CLAUDE_CONFIG_DIR", ".claude") / "settings.json", _claude_code),
    "codex": ClientFile(lambda: _home("CODEX_HOME", ".codex") / "config.toml", _codex, is_toml=True),
    "opencode": ClientFile(_opencode_path, _opencode),
    "crush": ClientFile(lambda: _home("XDG_CONFIG_HOME", ".config") / "crush" / "crush.json", _crush),
}


def write(client: str, urls: Urls, token: str) -> Written:
    """Puts the settings into the client's file, which is made if it is not there. Raises CannotWrite."""
    file = FILES[client]
    path = file.path().resolve()  # a link stays one
    values = file.values(urls, token)
    if not all(values.values()):
        raise CannotWrite(f"{client}: the configuration has no enabled provider that it can talk to")
    text = _read(path)
    try:
        new = _with_toml(text, values) if file.is_toml else _with_json(text, values)
    except ValueError as error:
        raise CannotWrite(f"{path}: {error}; nothing was changed") from None
    try:
        if new == text and path.exists():
            path.chmod(_OWNER_ONLY)
            return Written(path, is_changed=False, backup="")
        backup = _back_up(path)
        _replace(path, new)
    except OSError as error:
        raise CannotWrite(f"{path} cannot be written: {error.strerror}") from None
    return Written(path, is_changed=True, backup=backup)


def read_values(client: str) -> Any:
    """Returns what the client's file holds. Raises CannotWrite."""
    file = FILES[client]
    text = _read(path := file.path())
    try:
        return _parse_toml(text).unwrap() if file.is_toml else jsonc.values_of(text)
    except ValueError as error:
        raise CannotWrite(f"{path}: {error}") from None


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode() if path.exists() else ""  # line ends stay as they are
    except (OSError, UnicodeDecodeError) as error:
        raise CannotWrite(f"{path} cannot be read: {type(error).__name__}") from None


def _with_json(text: str, values: Values) -> str:
    for path, value in values.items():
        if _value_at(jsonc.values_of(text), path) != value:
            text = jsonc.set_value(text, path, value)
    return text


def _with_toml(text: str, values: Values) -> str:
    document = _parse_toml(text)
    for path, value in values.items():
        if _value_at(document, path) != value:
            _set_in_toml(document, path, value)
    return str(document.as_string())


def _parse_toml(text: str) -> Any:
    import tomlkit  # seldom needed
    from tomlkit.exceptions import TOMLKitError

    try:
        return tomlkit.parse(text)
    except TOMLKitError as error:
        raise ValueError(f"it is not TOML: {error}") from None


def _set_in_toml(table: Any, path: tuple[str, ...], value: object) -> None:
    import tomlkit

    *outer, last = path
    for depth, name in enumerate(outer):
        if name not in table:
            table[name] = tomlkit.table(is_super_table=depth == 0 and len(outer) > 1)
        table = table[name]
        if not isinstance(table, dict):
            raise ValueError("a table is expected where the settings belong")  # noqa: TRY004 - the file's fault
    table[last] = value


def _value_at(tree: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def _back_up(path: Path) -> str:
    if not path.exists():
        return ""
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    backup = path.with_name(f"{path.name}.{moment}.bak")
    shutil.copy2(path, backup)
    backup.chmod(_OWNER_ONLY)
    return str(backup)


def _replace(path: Path, text: str) -> None:
    """Replaces the file at once. It holds a token now: nobody else may read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", dir=path.parent, encoding="utf-8", newline="", delete=False) as file:
        file.write(text)
    Path(file.name).replace(path)  # made for its owner alone
