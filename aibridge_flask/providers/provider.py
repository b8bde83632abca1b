"""A provider is data: which paths it bridges and passes through, to which URL, and with which header."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes, urlsplit

from msgspec import Struct

from ..config import ProviderSettings
from ..config.settings import BreakerSettings
from ..errors import UnknownRoute
from ..model import EMPTY, ClientRequest, Secret, UpstreamRequest
from ..protocols import Format, UpstreamResponse

# The undecoded path. An encoded slash inside a model's name stays encoded.
_RAW_PATH = re.compile(r"/[A-Za-z0-9\-._~!$'()*+,:@&=%/]*")
_UNSAFE = re.compile(r"[\x00-\x20\x7f%;\\?#]|//|/\.{1,2}(/|$)")


def _same_request(request: UpstreamRequest) -> UpstreamRequest:
    return request


def _same_response(request: UpstreamRequest, response: UpstreamResponse) -> UpstreamResponse:
    return response


def _no_profile(model: str) -> str:
    return ""


class StoredRoute(Struct, frozen=True):
    """The path of objects that an account stores, below which follows the id of one.

    `kind` is what the API calls such an object in its errors. `operations` are the words that may stand in
    place of an id. A passthrough `POST` to the path itself makes an object.
    """

    path: str
    kind: str
    operations: frozenset[str] = frozenset()


class Interceptor(Struct, frozen=True):
    """The bridged route that matches a request. `endpoint` is the path after the provider's name."""

    format: Format
    endpoint: str
    url: str


@dataclass(frozen=True, slots=True)
class Provider:
    """One configured provider.

    `keys` are the central keys; a provider that is `byok_only` has none. `user_headers` are the headers in
    which a client's own credential may arrive, in order of preference. `failure_statuses` count as failures
    for a circuit breaker.

    `prepare` rewrites a request at each attempt, and `decode` rewrites its response for the client. If they
    do, `translates` is true. If requests are signed instead of sent with a key, `signing_hint` is the
    credential's hint; else it is empty. `local_responses` are the JSON texts that the bridge itself returns,
    by path. `follow_up_headers`, with lower-case names, go with requests that the bridge makes itself between
    rounds of tools. `profile_for` returns what is called for the model that a client asks for, "" if it is
    that model.

    `stored_routes` are those of objects that belong to the actor who made them, as far as `ownership` says.
    Only admins may change what is behind `admin_routes`, which are passthrough routes.
    """

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
    stored_routes: tuple[StoredRoute, ...] = ()
    ownership: str = "off"
    admin_routes: tuple[str, ...] = ()
    user_headers: tuple[str, ...] = ("authorization",)
    byok_only: bool = False
    send_actor_headers: bool = False
    circuit_breaker: tuple[BreakerSettings, ...] = ()
    failure_statuses: frozenset[int] = frozenset((503, 504))
    max_retries: int = 0
    api_dump_dir: str = ""
    inject_tools: bool = True
    force_usage: bool = True
    translates: bool = False
    signing_hint: str = ""
    local_responses: Mapping[str, bytes] = field(default_factory=lambda: EMPTY)
    follow_up_headers: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    prepare: Callable[[UpstreamRequest], UpstreamRequest] = _same_request
    decode: Callable[[UpstreamRequest, UpstreamResponse], UpstreamResponse] = _same_response
    profile_for: Callable[[str], str] = _no_profile

    @property
    def host(self) -> str:
        """The value of the header `Host` for the upstream."""
        return urlsplit(self.base_url).netloc

    def format_at(self, path: str) -> Format:
        """Returns the wire format of a path, for any method; the provider's default if it has none."""
        return self.bridged_routes.get(path, self.default_format)

    def create_interceptor(self, request: ClientRequest) -> Interceptor:
        """Returns the bridged route that matches. Raises UnknownRoute."""
        wire_format = self.bridged_routes.get(request.path)
        if wire_format is None or request.method != "POST":
            raise UnknownRoute(request.method, request.path)
        return Interceptor(wire_format, request.path, self.url(request))

    def is_bridged(self, request: ClientRequest) -> bool:
        return request.method == "POST" and request.path in self.bridged_routes

    def passthrough_route(self, path: str) -> str:
        """Returns the passthrough route that matches a path; "" if none does.

        The undecoded path is compared: encoded characters, double slashes and dot segments cannot match more
        than the list says.
        """
        if not is_plain_path(path):
            return ""
        for route in self.passthrough_routes:
            stem, star, _ = route.partition("*")
            if path == route or (star and path.startswith(stem) and len(path) > len(stem)):
                return route
        return ""

    def url(self, request: ClientRequest) -> str:
        """Returns the upstream's URL: the base URL replaces the route prefix, the rest is unchanged."""
        rest = request.path.removeprefix(self.route_prefix)
        return f"{self.base_url}{rest}?{request.query}" if request.query else self.base_url + rest


def is_plain_path(path: str) -> bool:
    """Whether no decoder can find dot segments, double slashes or separators in a path.

    Some decoders also read overlong or full-width characters as dots and slashes: these are refused too.

    >>> [is_plain_path(p) for p in ("/v1/models/a%2Fb", "/v1/models/%2e%2e", "/v1//x", "/a;b", "/a/..")]
    [True, False, False, False, False]
    >>> [is_plain_path(p) for p in ("/a/%c3%a9", "/a/%c0%ae%c0%ae/b", "/a/%ef%bc%8e%ef%bc%8e/b", "/a/%e9")]
    [True, False, False, False]
    """
    if not _RAW_PATH.fullmatch(path):
        return False
    try:
        return not _UNSAFE.search(decode_path(path))
    except UnicodeDecodeError:
        return False


def decode_path(path: str) -> str:
    """Returns a path as the most tolerant decoder reads it. Raises UnicodeDecodeError.

    >>> decode_path("/a%2Fb/%ef%bd%83")
    '/a/b/c'
    """
    return unicodedata.normalize("NFKC", unquote_to_bytes(path).decode("utf-8"))


def common_fields(settings: ProviderSettings, base_url: str) -> dict[str, object]:
    """Returns the fields that every provider takes from its settings in the same way."""
    return {
        "type": settings.type,
        "name": settings.name,
        "enabled": settings.enabled,
        "base_url": (settings.base_url or base_url).rstrip("/"),
        "keys": settings.keys,
        "ownership": settings.passthrough_ownership,
        "send_actor_headers": settings.send_actor_headers,
        "circuit_breaker": settings.circuit_breaker,
        "max_retries": settings.max_retries,
        "api_dump_dir": settings.api_dump_dir,
        "inject_tools": settings.inject_tools,
        "force_usage": settings.force_usage,
    }
