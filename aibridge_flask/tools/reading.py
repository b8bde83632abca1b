"""How much is read of an MCP server's answers, and where one that comes in several streams goes on."""

from __future__ import annotations

from math import inf

from .. import sse
from ..errors import ToolError

_DEFAULT_PAUSE = 1.0  # seconds
_MIN_PAUSE = 0.05


class Budget:
    """Limits what is read in total, while it is read: parsed, it takes many times the memory."""

    def __init__(self, size: float = inf, objects: float = inf) -> None:
        """`size` is in bytes. `objects`: how many JSON objects there may be."""
        self._size, self._objects = size, objects

    def spend(self, piece: bytes) -> None:
        """Raises ToolError if there is too much."""
        self._size -= len(piece)
        self._objects -= piece.count(b"{") if self._objects < inf else 0
        if self._size < 0 or self._objects < 0:
            raise ToolError("the MCP server's answer is too large")


UNLIMITED = Budget()


class Bookmark:
    """`last_event_id` is that of the stream that is read, empty if the server gives none.

    `pause`: the seconds after which the server wants to be asked for the rest.
    """

    last_event_id, pause = b"", _DEFAULT_PAUSE

    def move(self, event: bytes) -> None:
        """Notes the id of an event, and the pause that it asks for."""
        if b"id" in event or b"retry" in event:
            self.last_event_id = sse.field(event, b"id", self.last_event_id)
            retry = sse.field(event, b"retry", b"")
            if retry.isdigit() and len(retry) < 10:
                self.pause = max(_MIN_PAUSE, int(retry) / 1000)
