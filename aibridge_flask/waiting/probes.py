"""What can be seen of a socket without reading from it."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Callable
from typing import Any

from .runtime import plain_duplicate, unpatched

POLLRDHUP = getattr(select, "POLLRDHUP", 0)


def has_disconnected(client: Any) -> bool:
    """Peeks at the socket without consuming data.

    Uses a plain socket on a duplicate of the descriptor, since TLS sockets refuse to peek. Flags of the
    duplicate are the client's too, so the call itself is non-blocking.
    """
    try:
        with plain_duplicate(client) as plain:
            return not plain.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError as error:
        return error.errno not in (errno.EMFILE, errno.ENFILE)


def has_hung_up(client: Any) -> bool:
    """Like `has_disconnected`, but also detects it behind bytes of a next request."""
    poll = unpatched("select", "poll")()
    poll.register(client.fileno(), POLLRDHUP)
    return bool(poll.poll(0))


def readiness_probe(upstream: socket.socket) -> Callable[[], bool]:
    """Returns a non-blocking function: whether a socket has data to read, or has ended."""
    poll = unpatched("select", "poll")()
    poll.register(upstream.fileno(), select.POLLIN)
    return lambda: bool(poll.poll(0))
