"""A provider is data: which paths it bridges and passes, where to, and with which header."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes, urlsplit

from ..config import ProviderSettings
from ..config.settings import BreakerSettings
from ..errors import UnknownRoute
from ..model import EMPTY, ClientRequest, Format, Interceptor, Secret, UpstreamRequest, UpstreamResponse

# What a path may hold as it stands; an encoded slash inside a model's name stays encoded.
_RAW = re.compile(r"/[A-Za-z0-9\-._~!$'()*+,:@&=%/]*")
_UNSAFE = re.compile(r"[\x00-\x20\x7f%;\\?#]|//|/\.{1,2}(/|$)")


def _as_it_is(outgoing: UpstreamRequest) -> UpstreamRequest:
    return outgoing


def _as_it_came(outgoing: UpstreamRequest, answer: UpstreamResponse) -> UpstreamResponse:
    return answer


@dataclass(frozen=True, slots=True)
class Provider:
    """One configured provider. `keys` are the central keys; `user_headers` are those in which a
    client's own credential may come, in their order; `byok_only` has no central keys at all;
    `failures` are the statuses that count for a circuit breaker. `prepare` makes of a request what
    is sent, at each attempt, and `decode` makes of an answer to it what clients understand; where they do,
    `translates` is set. `signs` is the credential's hint where requests are signed, not sent with
    a key. `own_answers` are JSON texts by the paths where the bridge itself answers."""

    type: str
    name: str
    enabled: bool
    base_url: str
    route_prefix: str
    auth_header: str
    bridged_routes: Mapping[str, Format]
    passthrough_routes: tuple[str, ...]
    default_format: Format
    keys: tuple[Secret, ...] = ()
    user_headers: tuple[str, ...] = ("authorization",)
    byok_only: bool = False
    send_actor_headers: bool = False
    circuit_breaker: tuple[BreakerSettings, ...] = ()
    failures: frozenset[int] = frozenset((503, 504))
    max_retries: int = 0
    api_dump_dir: str = ""
    inject_tools: bool = True
    translates: bool = False
    signs: str = ""
    own_answers: Mapping[str, bytes] = field(default_factory=lambda: EMPTY)
    prepare: Callable[[UpstreamRequest], UpstreamRequest] = _as_it_is
    decode: Callable[[UpstreamRequest, UpstreamResponse], UpstreamResponse] = _as_it_came

    @property
    def host(self) -> str:
        """The upstream's `Host`."""
        return urlsplit(self.base_url).netloc

    def format_at(self, path: str) -> Format:
        """The wire format of a path, whatever its method; the provider's own elsewhere."""
        return self.bridged_routes.get(path, self.default_format)

    def create_interceptor(self, call: ClientRequest) -> Interceptor:
        """The bridged route that fits; raises UnknownRoute."""
        found = self.bridged_routes.get(call.path)
        if found is None or call.method != "POST":
            raise UnknownRoute(call.method, call.path)
        return Interceptor(found, call.path, self.url(call))

    def is_bridged(self, call: ClientRequest) -> bool:
        return call.method == "POST" and call.path in self.bridged_routes

    def passthrough(self, path: str) -> str:
        """The white list's entry that fits, or nothing. The path is compared as it stands on the
        wire: what is encoded, doubled or dotted cannot widen the list."""
        if not is_plain(path):
            return ""
        for route in self.passthrough_routes:
            stem, star, _ = route.partition("*")
            if path == route or (star and path.startswith(stem) and len(path) > len(stem)):
                return route
        return ""

    def url(self, call: ClientRequest) -> str:
        """The upstream's URL: the base URL in place of the route prefix, the rest as it came."""
        rest = call.path.removeprefix(self.route_prefix)
        return f"{self.base_url}{rest}?{call.query}" if call.query else self.base_url + rest


def is_plain(path: str) -> bool:
    """Also what some decoders take for dots and slashes, overlong or of full width, is not plain.

    >>> [is_plain(p) for p in ("/v1/models/a%2Fb", "/v1/models/%2e%2e", "/v1//x", "/a;b", "/a/..")]
    [True, False, False, False, False]
    >>> [is_plain(p) for p in ("/a/%c3%a9", "/a/%c0%ae%c0%ae/b", "/a/%ef%bc%8e%ef%bc%8e/b", "/a/%e9")]
    [True, False, False, False]
    """
    if not _RAW.fullmatch(path):
        return False
    try:
        text = unquote_to_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return not _UNSAFE.search(unicodedata.normalize("NFKC", text))


def common(settings: ProviderSettings, base_url: str) -> dict[str, object]:
    """The fields that every provider takes from its settings alike."""
    return {
        "type": settings.type,
        "name": settings.name,
        "enabled": settings.enabled,
        "base_url": (settings.base_url or base_url).rstrip("/"),
        "keys": settings.keys,
        "send_actor_headers": settings.send_actor_headers,
        "circuit_breaker": settings.circuit_breaker,
        "max_retries": settings.max_retries,
        "api_dump_dir": settings.api_dump_dir,
        "inject_tools": settings.inject_tools,
    }
