"""Probes on silent connections: a NAT or load balancer forgets those that carry nothing for minutes.

A model may think that long. The probes also end a connection whose other side is gone.
"""

from __future__ import annotations

import socket

_IDLE_SECONDS = 60
_INTERVAL_SECONDS = 15
_PROBES = 4
# macOS has TCP_KEEPALIVE for what others call TCP_KEEPIDLE.
_OPTIONS = (
    (("TCP_KEEPIDLE", "TCP_KEEPALIVE"), _IDLE_SECONDS),
    (("TCP_KEEPINTVL",), _INTERVAL_SECONDS),
    (("TCP_KEEPCNT",), _PROBES),
)


def socket_options() -> list[tuple[int, int, int]]:
    """Returns what this platform has of them, for `setsockopt`."""
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for names, value in _OPTIONS:
        known = [getattr(socket, name) for name in names if hasattr(socket, name)]
        options += [(socket.IPPROTO_TCP, option, value) for option in known[:1]]
    return options
