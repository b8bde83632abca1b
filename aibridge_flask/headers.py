"""Which headers are forwarded (RFC 9110 7.6.1). Names from WSGI are in lower case."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import quote

from .caches import cached_if_short
from .model import Actor, HeaderList

T = TypeVar("T")
TOKEN_HEADERS = ("x-aibridge-token", "x-coder-ai-governance-token")
TOKEN_PREFIX = "aib_"  # noqa: S105 - a prefix, not a token
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
_NOT_UP_PREFIXES: tuple[str, ...] = (
    "x-forwarded-", "x-ai-bridge-actor-",
    # the identity headers of login proxies: oauth2-proxy, Cloudflare, AWS, Google, Azure
    "x-auth-request-", "cf-access-", "x-amzn-oidc-", "x-goog-iap-", "x-goog-authenticated-user-",
    "x-ms-client-principal",
)  # fmt: skip
# The client's account and browser, by which a provider would judge a central key.
_ACCOUNT_HEADERS = frozenset((
    "openai-organization", "openai-project", "origin", "referer",
))  # fmt: skip
_WITH_ACCOUNT_PREFIXES = (*_NOT_UP_PREFIXES, "sec-fetch-")
# Any of its characters may be percent-encoded.
_GATEWAY_TOKEN = re.compile(r"(?:a|%61)(?:i|%69)(?:b|%62)(?:_|%5[fF])(?:[A-Za-z0-9_-]|%[0-9A-Fa-f]{2}){20,}")
_BASIC = re.compile(r"basic\s+([a-z0-9+/]+)", re.IGNORECASE)  # also behind what a server has joined it to
_DRESSED = re.compile(r"""^(?:(?:bearer|basic|token)\s+)*(["']?)(.+)\1$""", re.IGNORECASE | re.DOTALL)
DROPPED_RESPONSE_HEADERS = _HOP_BY_HOP | frozenset(("set-cookie", "set-cookie2", "date", "server"))
_UNPREFIXED_KEYS = ("CONTENT_TYPE", "CONTENT_LENGTH")
_MAX_CACHED_LENGTH = 2000  # characters of all keys of an environ
_HOST = re.compile(r"([A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?|\[[0-9A-Fa-f:.]+\])(:[0-9]*)?", re.ASCII)
_PROXY_KEYS = ("HTTP_FORWARDED", "HTTP_X_REAL_IP", "HTTP_VIA")


def _cached_by_keys(compute: Callable[[tuple[str, ...]], T]) -> Callable[[Mapping[str, Any]], T]:
    """Decorates a function of an environ's keys: the requests of a client have the same keys each time.

    Results for long keys are not cached, so the cache stays small.
    """
    cached = lru_cache(maxsize=256)(compute)

    def lookup(environ: Mapping[str, Any]) -> T:
        keys = tuple(environ)
        return cached(keys) if len("".join(keys)) < _MAX_CACHED_LENGTH else compute(keys)

    return lookup


@_cached_by_keys
def _header_keys(keys: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Returns (environ key, header name) of each header."""
    header_keys = [key for key in keys if key.startswith("HTTP_") or key in _UNPREFIXED_KEYS]
    return tuple((key, key.removeprefix("HTTP_").replace("_", "-").lower()) for key in header_keys)


def from_environ(environ: Mapping[str, Any]) -> dict[str, str]:
    """Returns the request's headers with lower-case names.

    Servers set CONTENT_TYPE and CONTENT_LENGTH to "" if the client did not send them.

    >>> from_environ({"HTTP_X_API_KEY": "k", "CONTENT_TYPE": "", "wsgi.input": None})
    {'x-api-key': 'k'}
    """
    return {
        name: environ[key]
        for key, name in _header_keys(environ)
        if environ[key] or key not in _UNPREFIXED_KEYS
    }


def wsgi_name(name: str) -> str:
    """Returns a header's name as `from_environ` names it: WSGI does not tell `_` from `-`.

    >>> wsgi_name("X_Employee ")
    'x-employee'
    """
    return name.strip().replace("_", "-").lower()


@_cached_by_keys
def is_forwarded(keys: tuple[str, ...]) -> bool:
    """Whether a proxy has added its headers to the request; takes the WSGI environ.

    >>> is_forwarded({"HTTP_X_FORWARDED_FOR": "10.0.0.1"}), is_forwarded({"HTTP_HOST": "a"})
    (True, False)
    """
    return any(key in _PROXY_KEYS or key.startswith("HTTP_X_FORWARDED_") for key in keys)


def has_valid_host(environ: Mapping[str, Any]) -> bool:
    """Whether the `Host` names a host; HTTP/1.1 requires it (RFC 9112 3.2)."""
    host: str | None = environ.get("HTTP_HOST")
    return environ.get("SERVER_PROTOCOL") != "HTTP/1.1" if host is None else is_host(host)


@cached_if_short(256)
def is_host(text: str) -> bool:
    """
    >>> [is_host(text) for text in ("my_host:8080", "[::1]:1", "a b", "a..b", "a@b", "")]
    [True, True, False, False, False, False]
    """
    return _HOST.fullmatch(text) is not None


def _connection_options(connection: str) -> frozenset[str]:
    """Returns the header names that a `Connection` header lists (RFC 9110 7.6.1), in lower case."""
    if not connection or connection.lower() in ("keep-alive", "close"):
        return frozenset()
    return frozenset(name.strip().lower() for name in connection.split(","))


@cached_if_short(2048)
def _wire_name(name: str) -> str:
    return name.title()


def to_upstream(
    headers: Mapping[str, str],
    dropped: frozenset[str] = DROPPED_REQUEST_HEADERS,
    with_central_key: bool = False,
) -> list[tuple[str, str]]:
    """Returns the headers of a client's request that an upstream may see, without credentials.

    `dropped` are lower-case names, at least DROPPED_REQUEST_HEADERS. `with_central_key`: the client's account
    is left out, too.
    """
    account = _ACCOUNT_HEADERS if with_central_key else frozenset()
    prefixes = _WITH_ACCOUNT_PREFIXES if with_central_key else _NOT_UP_PREFIXES
    if "connection" in headers:
        dropped |= _connection_options(headers["connection"])
    fields = [
        (_wire_name(name), value)
        for name, value in headers.items()
        if name not in dropped and name not in account and not name.startswith(prefixes)
    ]
    if _may_hold_token("\n".join([value for _, value in fields])):
        return [field for field in fields if not holds_token(field[1])]
    return fields


def holds_token(value: str) -> bool:
    """Whether a header's value, a path or a query holds a gateway token, in whatever dress.

    >>> token = TOKEN_PREFIX + "x" * 43
    >>> holds_token(f'a, Bearer "{token}"'), holds_token(f"key=%22{token}"), holds_token("aib_ is our prefix")
    (True, True, False)
    """
    if not _may_hold_token(value):
        return False
    return bool(_GATEWAY_TOKEN.search(value)) or any(map(_decodes_to_token, _BASIC.findall(value)))


def without_token(value: str) -> str:
    """Returns a header's value, or "" if it holds a gateway token."""
    return "" if holds_token(value) else value


def _may_hold_token(text: str) -> bool:
    return TOKEN_PREFIX in text or "%" in text or "basic" in text.lower()


def _decodes_to_token(text: str) -> bool:
    try:
        return holds_token(b64decode(text + "==").decode("latin-1"))
    except ValueError:
        return False


def mask_tokens(text: str) -> str:
    """Returns a text with the gateway tokens in it replaced by hints."""
    if not _may_hold_token(text):
        return text
    masked = _GATEWAY_TOKEN.sub(lambda match: mask_secret(match[0]), text)
    return _BASIC.sub(lambda match: "Basic ..." if _decodes_to_token(match[1]) else match[0], masked)


def to_client(
    headers: HeaderList, dropped: frozenset[str] = DROPPED_RESPONSE_HEADERS
) -> list[tuple[str, str]]:
    """Returns the headers of an upstream's response that a client may see; repeated headers stay separate.

    `dropped` are lower-case names, at least DROPPED_RESPONSE_HEADERS.
    """
    names = [name.lower() for name, _ in headers]
    if "connection" in names:
        values = [value for lower, (_, value) in zip(names, headers, strict=True) if lower == "connection"]
        dropped |= _connection_options(",".join(values))
    return [field for lower, field in zip(names, headers, strict=True) if lower not in dropped]


def find(headers: HeaderList, lower_name: str) -> str:
    """Returns the first value of a header, or "". `lower_name` is in lower case."""
    for name, value in headers:
        if name.lower() == lower_name:
            return value
    return ""


def is_event_stream(headers: HeaderList) -> bool:
    """Whether the headers of a response say that its body is an event stream."""
    return find(headers, "content-type").lower().startswith("text/event-stream")


class HeaderMapping(Mapping[str, str]):
    """A header list as a mapping, as `requests` expects it: names in any case, repeated headers joined."""

    def __init__(self, fields: HeaderList) -> None:
        self.fields = fields

    def __getitem__(self, name: str) -> str:
        values = [value for key, value in self.fields if key.lower() == name.lower()]
        if not values:
            raise KeyError(name)
        return ", ".join(values)

    def items(self) -> HeaderList:  # type: ignore[override]
        """Returns all fields; repeated headers stay separate."""
        return self.fields

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for name, _ in self.fields))

    def __len__(self) -> int:
        return len(list(iter(self)))


def actor_headers(actor: Actor) -> list[tuple[str, str]]:
    """Returns headers that name the actor to an upstream; all but plain text is percent-encoded."""
    metadata = [(f"X-AI-Bridge-Actor-Metadata-{_to_field_name(k)}", v) for k, v in actor.metadata.items()]
    return [(name, _percent_encode(value)) for name, value in [("X-AI-Bridge-Actor-ID", actor.id), *metadata]]


def _to_field_name(name: str) -> str:
    """
    >>> _to_field_name("team name")
    'team-name'
    """
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in name)


def _percent_encode(value: str) -> str:
    return quote(value, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")


def bearer_token(value: str) -> str:
    """Returns the token of an `Authorization: Bearer` value, or "".

    >>> [bearer_token(value) for value in ("bearer  abc", "Basic abc", "Bearer")]
    ['abc', '', '']
    """
    scheme, _, secret = value.partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


def bare_secret(value: str) -> str:
    """Returns the secret of a credential as upstreams repeat it: without schemes and quotes.

    >>> [bare_secret(value) for value in ("BEARER  abc", "Bearer Bearer abc", '"abc"', "tid=a, b")]
    ['abc', 'abc', 'abc', 'tid=a, b']
    """
    return _DRESSED.sub(r"\2", value, count=1)


def mask_secret(secret: str) -> str:
    """Returns a hint by which keys can be told apart, and which does not reveal them.

    >>> mask_secret("sk-ant-0123456789abcdef"), mask_secret("0123456789"), mask_secret("abc")
    ('sk-a...cdef', '01...89', '...')
    """
    size = len(secret)
    shown = 4 if size >= 20 else 2 if size >= 10 else 1 if size >= 5 else 0
    return f"{secret[:shown]}...{secret[size - shown :]}"
