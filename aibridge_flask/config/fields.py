"""marshmallow fields without implicit conversions, fields for secrets, and validators."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from ipaddress import ip_network
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from urllib.parse import urlsplit

from marshmallow import ValidationError, fields, validate

from ..model import Secret

_PLAIN_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")  # anything else may be a misplaced secret
_REDIS_DATABASE = re.compile(r"/?[0-9]*", re.ASCII)
_URL_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")
RESERVED = frozenset((
    "interceptions", "sessions", "models", "clients", "providers", "tokens", "usage", "healthz",
    "readyz", "metrics", "ui", "static", "api", "limits", "live", "groups", "export", "me", "openapi", "mcp",
    "audit", "tools",
))  # fmt: skip
_SOURCE_EXPECTED = '{ env = "..." }, { file = "..." } or { value = "..." } is expected'
POSITIVE = validate.Range(min=0, min_inclusive=False, error="a number above 0 is expected")
NOT_NEGATIVE = validate.Range(min=0, error="a number of 0 or more is expected")


class Text(fields.String):
    """A string."""


class Flag(fields.Boolean):
    """true or false."""

    truthy = {True}  # noqa: RUF012 - marshmallow's names
    falsy = {False}  # noqa: RUF012


class Count(fields.Integer):
    """A whole number."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(strict=True, validate=kwargs.pop("validate", NOT_NEGATIVE), **kwargs)

    def _validated(self, value: Any) -> Any:
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.make_error("invalid")
        return super()._validated(value)


class Number(fields.Float):
    """A finite number."""

    def _validated(self, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.make_error("invalid")
        return super()._validated(value)


class Texts(fields.List[str]):
    """An array of strings."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(Text(), **kwargs)

    def _deserialize(self, *args: Any, **kwargs: Any) -> Any:
        return tuple(super()._deserialize(*args, **kwargs))


class SecretField(fields.Field[Secret]):
    """`{ env = "NAME" }`, `{ file = "path" }` or `{ value = "secret" }`."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Secret:
        return Secret(resolve_secret(value))


def resolve_secret(value: Any) -> str:
    """Returns the secret that such a table names. Raises ValidationError."""
    if not isinstance(value, Mapping) or len(value) != 1:
        raise ValidationError(_SOURCE_EXPECTED)
    ((kind, source),) = value.items()
    if kind not in _SOURCES or not isinstance(source, str):
        raise ValidationError(_SOURCE_EXPECTED)
    secret = _SOURCES[kind](source).strip()
    if not secret or not (secret.isascii() and secret.isprintable()):
        raise ValidationError(f"the secret ({kind}) is empty or not one line of plain text")
    return secret


def _from_env(name: str) -> str:
    if not os.environ.get(name):
        shown = name if _VARIABLE.fullmatch(name) else "named here"
        raise ValidationError(f"the environment variable {shown} is not set")
    return os.environ[name]


def _from_file(path: str) -> str:
    try:
        return Path(path).read_text("utf-8-sig")
    except (OSError, UnicodeError, ValueError) as error:
        shown = path if "/" in path else "named here"
        raise ValidationError(f"the file {shown} cannot be read: {type(error).__name__}") from None


_SOURCES: Mapping[str, Callable[[str], str]] = {"env": _from_env, "file": _from_file, "value": str}


def plain_name(name: str) -> None:
    if not _PLAIN_NAME.fullmatch(name):
        raise ValidationError("lower-case letters and digits, joined by single hyphens, are expected")


def provider_name(name: str) -> None:
    plain_name(name)
    if name in RESERVED:
        raise ValidationError(f"{name!r} is a reserved word")


def url_prefix(prefix: str) -> None:
    if not _URL_PREFIX.fullmatch(prefix) or "." in {*prefix.split("/")} or ".." in prefix.split("/"):
        raise ValidationError('a path such as "/api/v2/aibridge" is expected, without a / at its end')


def http_url(url: str) -> None:
    """Absolute, http or https, without query, fragment or user."""
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        is_valid = False
    if not is_valid or parts.query or parts.fragment or "?" in url or "#" in url or "@" in parts.netloc:
        raise ValidationError("an absolute http or https URL without query or fragment is expected")
    if not url.isprintable() or " " in url:
        raise ValidationError("an absolute http or https URL without blanks is expected")


def optional_url(url: str) -> None:
    if url:
        http_url(url)


def _scheme(url: str) -> str:
    try:
        return urlsplit(url).scheme
    except ValueError:  # the message of the exception would repeat the URL
        return ""


def proxy_url(url: str) -> None:
    if url and _scheme(url) not in ("http", "https"):
        raise ValidationError("an http or https proxy URL is expected (SOCKS is not supported)")


def database_url(url: str) -> None:
    in_memory = url == "sqlite:///" or ":memory:" in url  # each connection would have its own database
    if in_memory or not url.startswith(("sqlite:///", "postgresql+psycopg://")):
        raise ValidationError('"sqlite:///file" or "postgresql+psycopg://user:pw@host/db" is expected')


def redis_url(url: str) -> None:
    """Asks the package `redis` itself, which looks at some options only when it creates a connection.

    It would take a database that is no number for 0.
    """
    if not url:
        return
    if not _is_installed("redis"):
        raise ValidationError("the package `redis` is needed: pip install 'aibridge-flask[redis]'")
    from redis import ConnectionPool

    try:
        connection: Any = ConnectionPool.from_url(url).make_connection()
        has_database = _REDIS_DATABASE.fullmatch(urlsplit(url).path) or url.startswith("unix:")
        is_valid = has_database and int(connection.db) >= 0 and "#" not in url and " " not in url
    except Exception:  # noqa: BLE001 - options go to many constructors; the message may repeat the password
        is_valid = False
    if not is_valid:
        raise ValidationError(
            '"redis://user:password@host:6379/0" is expected (or rediss:, or unix:///socket?db=0),'
            " with options that the package `redis` knows"
        )


def networks(values: tuple[str, ...]) -> None:
    for value in values:
        try:
            ip_network(value) if value != "unix:" else None
        except ValueError:
            raise ValidationError(
                f'{value!r}: a network such as "10.0.0.0/8" or "unix:" is expected'
            ) from None


def has_opentelemetry(endpoint: str) -> None:
    needed = ("opentelemetry", "opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
    if endpoint and not all(map(_is_installed, needed)):
        raise ValidationError("OpenTelemetry is needed: pip install 'aibridge-flask[tracing]'")


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def dump_folder(folder: str) -> None:
    """Creates the folder for its owner alone, and tries to write to it."""
    try:
        if folder:
            Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
            TemporaryFile(dir=folder).close()
    except (OSError, ValueError) as error:
        raise ValidationError(f"a folder that can be written is expected: {type(error).__name__}") from None


def pattern(text: str) -> None:
    try:
        re.compile(text)
    except re.error as error:
        raise ValidationError(f"a regular expression is expected: {error}") from None


def model_pattern(name: str) -> None:
    if not name.rstrip() or "*" in name[:-1]:
        raise ValidationError("the name of a model is expected, a `*` at its end only")
