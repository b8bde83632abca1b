"""All settings in effect, each with its value and where it comes from. Secrets are hidden."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..model import Secret
from .load import Source, load, read_sources

HIDDEN = "********"
_AT_MOST_ONE = ("circuit_breaker", "aws", "web_search")
_ABSENT = object()
_Path = tuple[str | int, ...]


class Effective(NamedTuple):
    """A setting by its path, such as `providers[0].aws.region`. `source` is `default`, `file` or
    `environment`.
    """

    setting: str
    value: Any
    source: str


def effective() -> list[Effective]:
    """Returns the settings that a server would have. Raises ConfigError."""
    sources = read_sources()
    return [Effective(_name(path), value, _source(sources, path)) for path, value in _leaves(load({}), ())]


def _leaves(value: Any, path: _Path, is_url: bool = False) -> Iterator[tuple[_Path, Any]]:
    if dataclasses.is_dataclass(value) and not isinstance(value, Secret):
        for field in dataclasses.fields(value):
            inner = getattr(value, field.name)
            if field.name in _AT_MOST_ONE:
                for only in inner:
                    yield from _leaves(only, (*path, field.name))
            else:
                yield from _leaves(inner, (*path, field.name), not field.repr)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(value, tuple) and any(map(dataclasses.is_dataclass, value)):
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*path, index))
    elif isinstance(value, Secret):
        yield path, HIDDEN if value else ""
    else:
        yield path, _without_secrets(value) if is_url else list(value) if isinstance(value, tuple) else value


def _without_secrets(url: str) -> str:
    """Returns a URL without user, password and options, also if one of them holds an unescaped @ or /.

    >>> _without_secrets("postgresql+psycopg://me:p@ss/w@host/db?sslmode=require"), _without_secrets("")
    ('postgresql+psycopg://********@host/db?********', '')
    >>> _without_secrets("sqlite:////var/lib/a@b.db")
    'sqlite:////var/lib/a@b.db'
    """
    scheme, mark, rest = url.partition("://")
    if not mark or scheme == "sqlite":
        return url
    rest, question, _ = rest.partition("?")
    user, at, place = rest.rpartition("@")
    return f"{scheme}://{HIDDEN + at if user or at else ''}{place}{'?' + HIDDEN if question else ''}"


def _name(path: _Path) -> str:
    steps = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in path]
    return "".join(steps).removeprefix(".")


def _source(sources: Mapping[Source, Mapping[str, Any]], path: _Path) -> str:
    """Returns the strongest source that names the setting."""
    return next((name for name, tree in sources.items() if _at(tree, path) is not _ABSENT), "default")


def _at(tree: Any, path: _Path) -> Any:
    for step in path:
        try:
            tree = tree[step]
        except (KeyError, IndexError, TypeError):
            return _ABSENT
    return tree
