"""The peer of a request's connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def peer_address(environ: Mapping[str, Any]) -> str | None:
    """Returns the address of whoever is connected to the server: "" for a Unix socket, None if unknown.

    Werkzeug's ProxyFix replaces it by what a header says, and keeps the original.
    """
    address: str | None = environ.get("werkzeug.proxy_fix.orig", environ).get("REMOTE_ADDR")
    return address
