"""Which headers pass, and which end here (RFC 9110 7.6.1). Names from WSGI come in lower case."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import quote

from .model import Actor, HeaderList

T = TypeVar("T")
TOKEN_HEADERS = ("x-aibridge-token", "x-coder-ai-governance-token")
TOKEN_PREFIX = "aib_"  # noqa: S105 - what tokens begin with, not a token
INTERCEPTION_HEADER = "X-AIBridge-Interception-Id"

_HOP_BY_HOP = frozenset((
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
    "proxy-authentication-info", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings",
))  # fmt: skip
_REQUEST_ONLY = frozenset((
    "host", "content-length", "expect", "forwarded", "x-real-ip", "via", "cookie",
    "authorization", "x-api-key",
))  # fmt: skip
DROPPED_REQUEST_HEADERS = _HOP_BY_HOP | _REQUEST_ONLY | frozenset(TOKEN_HEADERS)
_NOT_UP_PREFIXES = ("x-forwarded-", "x-ai-bridge-actor-")
DROPPED_RESPONSE_HEADERS = _HOP_BY_HOP | frozenset(("set-cookie", "set-cookie2", "date", "server"))
_WITHOUT_HTTP = ("CONTENT_TYPE", "CONTENT_LENGTH")
_LONG = 2000  # characters of all keys
_FORWARDED = ("HTTP_FORWARDED", "HTTP_X_REAL_IP", "HTTP_VIA")


def _of_keys(find: Callable[[tuple[str, ...]], T]) -> Callable[[Mapping[str, Any]], T]:
    """What `find` makes of an environ's keys; a client's requests have the same ones again and again, and
    only what is short is kept."""
    kept = lru_cache(maxsize=256)(find)

    def found(environ: Mapping[str, Any]) -> T:
        keys = tuple(environ)
        return kept(keys) if len("".join(keys)) < _LONG else find(keys)

    return found


@_of_keys
def _named(keys: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """The keys of headers, and the headers' names."""
    named = [key for key in keys if key.startswith("HTTP_") or key in _WITHOUT_HTTP]
    return tuple((key, key.removeprefix("HTTP_").replace("_", "-").lower()) for key in named)


def from_environ(environ: Mapping[str, Any]) -> dict[str, str]:
    """The request's headers, with lower-case names; servers leave the two without HTTP_ empty
    where the client sent none.

    >>> from_environ({"HTTP_X_API_KEY": "k", "CONTENT_TYPE": "", "wsgi.input": None})
    {'x-api-key': 'k'}
    """
    return {name: environ[key] for key, name in _named(environ) if environ[key] or key not in _WITHOUT_HTTP}


@_of_keys
def is_forwarded(keys: tuple[str, ...]) -> bool:
    """A proxy has put its mark on the request, whose environ is asked.

    >>> is_forwarded({"HTTP_X_FORWARDED_FOR": "10.0.0.1"}), is_forwarded({"HTTP_HOST": "a"})
    (True, False)
    """
    return any(key in _FORWARDED or key.startswith("HTTP_X_FORWARDED_") for key in keys)


def _nominated(connection: str) -> frozenset[str]:
    """The names that a `Connection` header lists."""
    if not connection or connection.lower() in ("keep-alive", "close"):
        return frozenset()
    return frozenset(name.strip().lower() for name in connection.split(","))


_lower = lru_cache(maxsize=2048)(str.lower)


@lru_cache(maxsize=2048)
def _wire_name(name: str) -> str:
    return name.title()


def to_upstream(
    headers: Mapping[str, str], dropped: frozenset[str] = DROPPED_REQUEST_HEADERS
) -> list[tuple[str, str]]:
    """The client's headers that an upstream may see, which are not `dropped` (NOT_UP and more); the
    credential is added by the caller."""
    if "connection" in headers:
        dropped |= _nominated(headers["connection"])
    return [
        (_wire_name(name), value)
        for name, value in headers.items()
        if name not in dropped and not name.startswith(_NOT_UP_PREFIXES)
    ]


def to_client(
    headers: HeaderList, dropped: frozenset[str] = DROPPED_RESPONSE_HEADERS
) -> list[tuple[str, str]]:
    """The upstream's headers that a client may see, which are not `dropped` (NOT_DOWN and more); repeated
    ones stay apart."""
    names = [_lower(name) for name, _ in headers]
    if "connection" in names:
        told = [value for lower, (_, value) in zip(names, headers, strict=True) if lower == "connection"]
        dropped |= _nominated(",".join(told))
    return [field for lower, field in zip(names, headers, strict=True) if lower not in dropped]


def find(headers: HeaderList, wanted: str) -> str:
    """The first value of a header, or nothing; `wanted` is in lower case."""
    for name, value in headers:
        if _lower(name) == wanted:
            return value
    return ""


class HeaderMapping(Mapping[str, str]):
    """A header list, looked into as `requests` has it: any case, repeated ones joined."""

    def __init__(self, fields: HeaderList) -> None:
        self.fields = fields

    def __getitem__(self, name: str) -> str:
        found = [value for key, value in self.fields if key.lower() == name.lower()]
        if not found:
            raise KeyError(name)
        return ", ".join(found)

    def items(self) -> HeaderList:  # type: ignore[override]
        """Repeated ones stay apart."""
        return self.fields

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for name, _ in self.fields))

    def __len__(self) -> int:
        return len(list(iter(self)))


def actor_headers(actor: Actor) -> list[tuple[str, str]]:
    """Who asks, for an upstream that wants to know; anything but plain text is percent-encoded."""
    named = [(f"X-AI-Bridge-Actor-Metadata-{_token(k)}", v) for k, v in actor.metadata.items()]
    return [(name, _plain(value)) for name, value in [("X-AI-Bridge-Actor-ID", actor.id), *named]]


def _token(name: str) -> str:
    """
    >>> _token("team name")
    'team-name'
    """
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in name)


def _plain(value: str) -> str:
    return quote(value, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")


def bearer_token(value: str) -> str:
    """The token of an `Authorization` header, or nothing.

    >>> bearer("bearer  abc"), bearer("Basic abc"), bearer("Bearer")
    ('abc', '', '')
    """
    scheme, _, secret = value.partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


def mask_secret(secret: str) -> str:
    """A hint that tells keys apart and gives none away.

    >>> mask_secret("sk-ant-0123456789abcdef"), mask_secret("0123456789"), mask_secret("abc")
    ('sk-a...cdef', '01...89', '...')
    """
    size = len(secret)
    shown = 4 if size >= 20 else 2 if size >= 10 else 1 if size >= 5 else 0
    return f"{secret[:shown]}...{secret[size - shown :]}"
