"""Mode `header`: a trusted proxy authenticates the user, and names it and its groups in headers."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from flask import Request

from ..config.settings import AuthSettings
from ..errors import UntrustedProxy
from ..model import Actor, identifier
from .peer import peer_address

_UNIX = "unix:"


class HeaderLoader:
    """Accepts the headers from `trusted_proxies` only; `unix:` is a Unix socket's peer."""

    def __init__(self, auth: AuthSettings) -> None:
        self._key, self._groups_key = _key(auth.actor_header), _key(auth.groups_header)
        self._admins, self._admin_groups = frozenset(auth.admin_actors), frozenset(auth.admin_groups)
        self._trusts_unix = _UNIX in auth.trusted_proxies
        self._networks = [ip_network(network) for network in auth.trusted_proxies if network != _UNIX]

    def __call__(self, request: Request) -> Actor | None:
        """Returns the actor, or None if the header is missing or names nobody. Raises UntrustedProxy."""
        if not self._trusts(peer_address(request.environ)):
            raise UntrustedProxy
        name = _text(request, self._key)
        if not _is_name(name):
            return None
        found = (group.strip() for group in _text(request, self._groups_key).split(","))
        groups = tuple(group for group in found if _is_name(group))
        is_admin = name in self._admins or not self._admin_groups.isdisjoint(groups)
        return Actor(name, admin=is_admin, groups=groups)

    def _trusts(self, peer: str | None) -> bool:
        if not peer:
            return peer is not None and self._trusts_unix
        try:
            address = ip_address(peer)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None) or address
        return any(mapped in network for network in self._networks)


def _key(header: str) -> str:
    return "HTTP_" + header.upper().replace("-", "_")


def _text(request: Request, key: str) -> str:
    raw: str = request.environ.get(key, "")
    return raw.encode("latin-1").decode("utf-8", "replace").strip()


def _is_name(text: str) -> bool:
    return bool(text) and text.isprintable() and text == identifier(text)
