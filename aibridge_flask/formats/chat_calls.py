"""OpenAI Chat Completions: the tool calls of one answer, as the client is to see them."""

from __future__ import annotations

from typing import Any

from . import body
from .chat_reader import CallNumbering, call_name

_HELD = -1


class VisibleCalls:
    """Calls of `offered` tools are hidden, the client's own ones numbered without gaps. `nameless` are
    those of which neither can be said yet; `others` is true once one is the client's own."""

    def __init__(self, offered: frozenset[str]) -> None:
        self._offered = offered
        self._pieces = CallNumbering()
        self._places: dict[int, int] = {}
        self._next: dict[int, int] = {}
        self._hiding: set[int] = set()
        self.nameless: set[int] = set()
        self.others = False

    @property
    def hides(self) -> bool:
        return bool(self._hiding)

    @property
    def only_offered(self) -> bool:
        return self.hides and not self.others and not self.nameless

    def number(self, choice: int, position: int, piece: Any) -> int:
        """Which call, counted from 0, the piece at a position in its chunk is of."""
        number, name = self._pieces.number(choice, position, piece), call_name(piece)
        if number not in self._places and name:
            self.nameless.discard(number)
            self._places[number] = self._place(choice, name, piece.get("index"))
        elif number not in self._places:
            self.nameless.add(number)
        return number

    def _place(self, choice: int, name: str, index: Any) -> int:
        """As long as none is hidden a call keeps the number that it came with."""
        if name in self._offered:
            self._hiding.add(choice)
            return _HELD
        self.others = True
        keeps = isinstance(index, int) and choice not in self._hiding
        place: int = index if keeps else self._next.get(choice, 0)
        self._next[choice] = place + 1
        return place

    def is_hidden(self, number: int) -> bool:
        return self._places.get(number) == _HELD

    def shown(self, number: int, piece: bytes) -> bytes:
        """A piece of a stream's call, with its number for the client."""
        place = b"%d" % self._places.get(number, number)
        return (
            piece
            if body.object_members(piece).get("index") == place
            else body.set_field(piece, "index", place)
        )
