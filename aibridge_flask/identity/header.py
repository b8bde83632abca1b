"""Mode `header`: a trusted proxy has told the user apart and names it in a header."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from flask import Request

from ..config.settings import AuthSettings
from ..errors import UntrustedProxy
from ..model import Actor

_UNIX = "unix:"


class HeaderLoader:
    """Believes the header from `trusted_proxies` alone; a Unix socket's peer has no address."""

    def __init__(self, auth: AuthSettings) -> None:
        self._key = "HTTP_" + auth.actor_header.upper().replace("-", "_")
        self._admins = frozenset(auth.admin_actors)
        self._unix = _UNIX in auth.trusted_proxies
        self._networks = [ip_network(one) for one in auth.trusted_proxies if one != _UNIX]

    def __call__(self, request: Request) -> Actor | None:
        """Raises UntrustedProxy."""
        if not self._trusts(request.environ.get("REMOTE_ADDR")):
            raise UntrustedProxy
        raw = request.environ.get(self._key, "")
        name = raw.encode("latin-1").decode("utf-8", "replace").strip()
        return Actor(name, admin=name in self._admins) if name and name.isprintable() else None

    def _trusts(self, peer: str | None) -> bool:
        if not peer:
            return peer is not None and self._unix
        try:
            address = ip_address(peer)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None) or address
        return any(mapped in network for network in self._networks)
