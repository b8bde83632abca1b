"""Connections to an upstream that wait for a next request."""

from __future__ import annotations

import contextlib
from time import monotonic
from typing import Any

from ..waiting import Periodic

_MAX_IDLE_SECONDS = 30.0
_SWEEP_SECONDS = 5.0


class IdleConnections:
    """The newest is taken first. Those that are surplus, or that the upstream has closed, are closed soon."""

    def __init__(self) -> None:
        self._connections: list[Any] = []
        self._is_closed = False
        self._sweeps = Periodic(_SWEEP_SECONDS, self._sweep)

    def put(self, connection: Any) -> None:
        """Keeps a connection that can carry another request; closes it if nobody will ask for it."""
        connection.idle_since = monotonic()
        self._connections.append(connection)
        if self._is_closed:  # meanwhile
            self.close()
        else:
            self._sweeps.start()

    def take(self) -> Any:
        """Returns a connection, or None. It may be stale."""
        try:
            return self._connections.pop()
        except IndexError:
            return None

    def close(self) -> None:
        """Closes all of them, and those that come later."""
        self._is_closed = True
        self._sweeps.close()
        while (connection := self.take()) is not None:
            connection.close()

    def _sweep(self) -> bool:
        for connection in [*self._connections]:
            if is_stale(connection):
                with contextlib.suppress(ValueError):  # another thread took it
                    self._connections.remove(connection)
                    connection.close()
        return bool(self._connections)


def is_stale(connection: Any) -> bool:
    """Whether a connection is too old, or readable: the upstream has then ended it."""
    return bool(monotonic() - connection.idle_since > _MAX_IDLE_SECONDS or connection.is_readable())
