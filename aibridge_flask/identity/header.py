"""Mode `header`: a trusted proxy authenticates the user and names it in a header."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from flask import Request

from ..config.settings import AuthSettings
from ..errors import UntrustedProxy
from ..model import Actor, identifier
from .peer import peer_address

_UNIX = "unix:"


class HeaderLoader:
    """Accepts the header from `trusted_proxies` only; `unix:` is a Unix socket's peer."""

    def __init__(self, auth: AuthSettings) -> None:
        self._key = "HTTP_" + auth.actor_header.upper().replace("-", "_")
        self._admins = frozenset(auth.admin_actors)
        self._trusts_unix = _UNIX in auth.trusted_proxies
        self._networks = [ip_network(network) for network in auth.trusted_proxies if network != _UNIX]

    def __call__(self, request: Request) -> Actor | None:
        """Returns the actor, or None if the header is missing or names nobody. Raises UntrustedProxy."""
        if not self._trusts(peer_address(request.environ)):
            raise UntrustedProxy
        raw = request.environ.get(self._key, "")
        name = raw.encode("latin-1").decode("utf-8", "replace").strip()
        is_name = bool(name) and name.isprintable() and name == identifier(name)
        return Actor(name, admin=name in self._admins) if is_name else None

    def _trusts(self, peer: str | None) -> bool:
        if not peer:
            return peer is not None and self._trusts_unix
        try:
            address = ip_address(peer)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None) or address
        return any(mapped in network for network in self._networks)
