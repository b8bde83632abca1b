"""Loads the settings. Precedence: environment, the host's tree, the file, defaults."""

from __future__ import annotations

import copy
import json
import logging
import os
import tomllib
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any, Literal

from marshmallow import Schema, ValidationError, fields

from ..errors import ConfigError
from .fields import resolve_secret
from .schemas import SettingsSchema
from .settings import Settings

Source = Literal["environment", "file"]
_PREFIX = "AIBRIDGE_"
_SERVER_VARIABLES = ("AIBRIDGE_CONFIG", "AIBRIDGE_BIND", "AIBRIDGE_WORKERS")
_log = logging.getLogger("aibridge")
_DEFAULT_PROVIDERS = (
    ("anthropic", "ANTHROPIC_API_KEY"),
    ("openai", "OPENAI_API_KEY"),
    ("copilot", ""),
)
_snapshots: list[dict[str, Any]] = []  # the newest snapshot, or none
_ignored_variables: set[str] = set()  # of which a warning was logged


def take_snapshot() -> str:
    """Reads the configuration once for this process and its forks: `load` uses this snapshot from now on.

    A server's master calls it at the start and at each reload, so that a reload with a broken configuration
    changes nothing. Returns the error if the previous snapshot stays in use, else "". Raises ConfigError if
    there is no previous snapshot.
    """
    previous = _snapshots.copy()
    _snapshots.clear()
    try:
        load({})
        _snapshots.append(_resolve_secrets(merge_sources({})))
    except ConfigError as error:
        if not previous:
            raise
        _snapshots.extend(previous)
        return error.message
    return ""


def _resolve_secrets(tree: Any) -> Any:
    """Returns a copy with the secrets' values: their files may be gone when the copy is used."""
    if isinstance(tree, Mapping):
        if set(tree) in ({"env"}, {"file"}):
            return {"value": resolve_secret(tree)}
        return {key: _resolve_secrets(inner) for key, inner in tree.items()}
    return [_resolve_secrets(inner) for inner in tree] if isinstance(tree, list | tuple) else tree


def load(tree: Mapping[str, Any]) -> Settings:
    """Returns the validated settings. `tree` is the host's `app.config["AIBRIDGE"]`.

    Raises ConfigError with the full path of each wrong key and the expected value.
    """
    try:
        settings: Settings = SettingsSchema().load(merge_sources(tree))
    except ValidationError as error:
        raise ConfigError(*_error_lines(error.messages)) from None
    return settings


def merge_sources(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all sources as one tree, not validated yet. Raises ConfigError."""
    path = os.environ.get("AIBRIDGE_CONFIG", "")
    merged = copy.deepcopy(_snapshots[0]) if _snapshots else _read_file(path)
    _merge(merged, tree)
    _merge(merged, _read_environ())
    merged.setdefault("providers", _default_providers())
    return merged


def read_sources() -> dict[Source, dict[str, Any]]:
    """Returns the trees of the sources, the strongest first, not validated. Raises ConfigError."""
    return {"environment": _read_environ(), "file": _read_file(os.environ.get("AIBRIDGE_CONFIG", ""))}


def _read_file(path: str) -> dict[str, Any]:
    if not path:
        return {}
    try:
        text = Path(path).read_text("utf-8-sig")
        tree = json.loads(text) if path.endswith(".json") else tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"AIBRIDGE_CONFIG: {path} cannot be read: {type(error).__name__}") from None
    except ValueError as error:
        raise ConfigError(f"AIBRIDGE_CONFIG: {path} is not TOML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"AIBRIDGE_CONFIG: {path} holds no object")
    return tree


def _merge(into: MutableMapping[str, Any], over: Mapping[str, Any]) -> None:
    """Merges `over` into `into`. Sections are merged key by key, other values are replaced."""
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _read_environ() -> dict[str, Any]:
    """Returns the settings of the environment. Raises ConfigError.

    A variable that names no setting is not an error: Kubernetes sets some with this prefix by itself, for
    services such as `aibridge` and `aibridge-redis`.
    """
    tree: dict[str, Any] = {}
    ignored = []
    for name in sorted(os.environ):
        if not name.startswith(_PREFIX) or name in _SERVER_VARIABLES:
            continue
        path = name.removeprefix(_PREFIX).lower().split("__")
        field = _field_at(SettingsSchema(), path)
        if field is None:
            ignored.append(name)
        elif not _is_scalar(field):
            raise ConfigError(f"{name}: tables cannot come from the environment")
        else:
            _merge(tree, _nested(path, _parse_value(name, field, os.environ[name])))
    _warn_of_ignored(ignored)
    return tree


def _field_at(schema: Schema, path: list[str]) -> fields.Field[Any] | None:
    """Returns the setting at this path, a section's too; None if there is none."""
    field = schema.fields.get(path[0])
    if len(path) == 1:
        return field
    return _field_at(field.schema, path[1:]) if isinstance(field, fields.Nested) else None


def _is_scalar(field: fields.Field[Any]) -> bool:
    inner = field.inner if isinstance(field, fields.List) else field
    return not isinstance(inner, fields.Nested | fields.Dict)


def _warn_of_ignored(names: list[str]) -> None:
    """Logs each name once in a process and its forks, without the values, which may be secrets."""
    if not _ignored_variables.issuperset(names):
        _ignored_variables.update(names)
        _log.warning(
            "ignored environment variables that name no setting (sections are joined by two underscores,"
            " as in AIBRIDGE_AUTH__MODE): %s",
            ", ".join(names),
        )


def _nested(path: list[str], value: Any) -> dict[str, Any]:
    return {path[0]: _nested(path[1:], value) if len(path) > 1 else value}


def _parse_value(name: str, field: fields.Field[Any], text: str) -> Any:
    if isinstance(field, fields.List):
        return [part.strip() for part in text.split(",") if part.strip()]
    if isinstance(field, fields.String):
        return text
    try:
        return _READERS[type(field).__name__](text)
    except (KeyError, ValueError):
        raise ConfigError(f"{name}: {field.__doc__} is expected") from None


_WORDS = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}
_READERS: Mapping[str, Any] = {"Flag": lambda text: _WORDS[text.lower()], "Count": int, "Number": float}


def _default_providers() -> list[dict[str, Any]]:
    return [
        {"type": type, "keys": [{"env": variable}] if os.environ.get(variable) else []}
        for type, variable in _DEFAULT_PROVIDERS
    ]


def _error_lines(messages: Any, path: str = "") -> Iterator[str]:
    """Yields marshmallow's messages as lines with full paths: `providers[1].keys[0]: ...`."""
    if isinstance(messages, dict):
        for key, inner in messages.items():
            step = f"[{key}]" if isinstance(key, int) else f".{key}"
            yield from _error_lines(inner, path if key in ("_schema", "key", "value") else path + step)
    else:
        texts = messages if isinstance(messages, list) else [messages]
        yield f"{path.lstrip('.')}: {' '.join(str(text) for text in texts)}"
