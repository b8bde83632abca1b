"""Mode `local`: the only user of this machine."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from flask import Request

from .. import headers
from ..caches import cached_if_short
from ..errors import NotLocal
from ..model import Actor
from .peer import peer_address

_LOCAL = Actor("local", admin=True)
_OWN_SITES = (None, "none", "same-origin")  # no browser, an address that was typed in, a page of the bridge


def local(request: Request) -> Actor:
    """Returns the actor `local`. Raises NotLocal.

    A web page in that user's browser is refused. It is recognised by its `Origin`, by `Sec-Fetch-Site` where
    that is not sent (images, links), or by the `Host` that DNS rebinding brings.
    """
    environ = request.environ
    origin = environ.get("HTTP_ORIGIN")
    is_allowed = (
        _is_loopback_address(peer_address(environ) or "")
        and not headers.is_forwarded(environ)
        and _is_loopback_name(_hostname("//" + environ.get("HTTP_HOST", "")))
        and (origin is None or _is_loopback_name(_hostname(origin)))
        and environ.get("HTTP_SEC_FETCH_SITE") in _OWN_SITES
    )
    if not is_allowed:
        raise NotLocal
    return _LOCAL


@cached_if_short(256)
def _is_loopback_address(address: str) -> bool:
    """
    >>> [_is_loopback_address(a) for a in ("127.0.0.9", "::1", "::ffff:127.0.0.1", "10.0.0.1", "")]
    [True, True, True, False, False]
    """
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return bool((mapped or ip).is_loopback)


@cached_if_short(256)
def _is_loopback_name(name: str) -> bool:
    return name == "localhost" or name.endswith(".localhost") or _is_loopback_address(name)


@cached_if_short(256)
def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
