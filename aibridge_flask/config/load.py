"""From the sources to the settings: environment, then the host's tree, then file, then defaults."""

from __future__ import annotations

import copy
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from marshmallow import Schema, ValidationError, fields

from ..errors import ConfigError
from .fields import resolve_secret
from .schemas import SettingsSchema
from .settings import Settings

_PREFIX = "AIBRIDGE_"
# Read by gunicorn.conf.py, and what Kubernetes sets by itself for a service named "aibridge".
_NOT_SETTINGS = re.compile(r"AIBRIDGE_(CONFIG|BIND|WORKERS|SERVICE_(HOST|PORT)(_.*)?|PORT(_.*)?)")
_DEFAULT_PROVIDERS = (
    ("anthropic", "ANTHROPIC_API_KEY"),
    ("openai", "OPENAI_API_KEY"),
    ("copilot", ""),
)
_taken: list[dict[str, Any]] = []  # what `take` found, or nothing


def take_snapshot() -> str:
    """Reads what `load` starts from, from now on, in this process and in those forked from it: a
    server's master takes it at the start and at each reload, so that a reload with a broken
    configuration changes nothing. Gives what is wrong, if what was taken before stands on; raises
    ConfigError if nothing was."""
    before = _taken.copy()
    _taken.clear()
    try:
        load({})
        _taken.append(_with_secrets(merge_sources({})))
    except ConfigError as error:
        if not before:
            raise
        _taken.extend(before)
        return error.message
    return ""


def _with_secrets(tree: Any) -> Any:
    """A copy, in which secrets stand themselves: their files may be gone when it is used."""
    if isinstance(tree, Mapping):
        if set(tree) in ({"env"}, {"file"}):
            return {"value": resolve_secret(tree)}
        return {key: _with_secrets(inner) for key, inner in tree.items()}
    return [_with_secrets(inner) for inner in tree] if isinstance(tree, list | tuple) else tree


def load(tree: Mapping[str, Any]) -> Settings:
    """The settings in force. `tree` is what a Flask host put into `app.config["AIBRIDGE"]`.

    Raises ConfigError with the full path of each wrong key and what was expected there.
    """
    try:
        settings: Settings = SettingsSchema().load(merge_sources(tree))
    except ValidationError as error:
        raise ConfigError("; ".join(_lines(error.messages))) from None
    return settings


def merge_sources(tree: Mapping[str, Any]) -> dict[str, Any]:
    """All sources as one tree, not validated yet; raises ConfigError."""
    found = copy.deepcopy(_taken[0]) if _taken else _file(os.environ.get("AIBRIDGE_CONFIG", ""))
    _merge(found, tree)
    _merge(found, _from_environ())
    found.setdefault("providers", _default_providers())
    return found


def _file(path: str) -> dict[str, Any]:
    if not path:
        return {}
    try:
        text = Path(path).read_text("utf-8")
        found: dict[str, Any] = json.loads(text) if path.endswith(".json") else tomllib.loads(text)
        return found
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"AIBRIDGE_CONFIG: {path} cannot be read: {type(error).__name__}") from None
    except ValueError as error:
        raise ConfigError(f"AIBRIDGE_CONFIG: {path} is not TOML: {error}") from None


def _merge(into: MutableMapping[str, Any], over: Mapping[str, Any]) -> None:
    """Sections are merged key by key; anything else is replaced."""
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _from_environ() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in sorted(os.environ):
        if not name.startswith(_PREFIX) or _NOT_SETTINGS.fullmatch(name):
            continue
        path = name.removeprefix(_PREFIX).lower().split("__")
        field = _scalar(SettingsSchema(), path)
        if field is None:
            raise ConfigError(f"{name}: no setting of this name can come from the environment")
        _merge(found, _nested(path, _typed(name, field, os.environ[name])))
    return found


def _scalar(schema: Schema, path: list[str]) -> fields.Field[Any] | None:
    field = schema.fields.get(path[0])
    if isinstance(field, fields.Nested) and len(path) > 1:
        return _scalar(field.schema, path[1:])
    deep = isinstance(field, fields.Nested | fields.Dict) or len(path) > 1
    nested = isinstance(field, fields.List) and isinstance(field.inner, fields.Nested)
    return None if deep or nested else field


def _nested(path: list[str], value: Any) -> dict[str, Any]:
    return {path[0]: _nested(path[1:], value) if len(path) > 1 else value}


def _typed(name: str, field: fields.Field[Any], text: str) -> Any:
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


def _lines(messages: Any, path: str = "") -> Iterator[str]:
    """marshmallow's tree of messages as lines with full paths: `providers[1].keys[0]: ...`."""
    if isinstance(messages, dict):
        for key, inner in messages.items():
            step = f"[{key}]" if isinstance(key, int) else f".{key}"
            yield from _lines(inner, path if key in ("_schema", "value") else path + step)
    else:
        texts = messages if isinstance(messages, list) else [messages]
        yield f"{path.lstrip('.')}: {' '.join(str(text) for text in texts)}"
