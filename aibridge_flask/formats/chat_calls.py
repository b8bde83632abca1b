"""OpenAI Chat Completions: decides which tool calls of a response the client sees, and under which index."""

from __future__ import annotations

from typing import Any

from . import body
from .chat_numbering import CallNumbering, call_name

_HIDDEN = -1


class VisibleCalls:
    """Hides calls of `offered` tools and gives the client's own calls indexes without gaps.

    `unnamed` are the numbers of calls whose name has not arrived, so that it is not known whose they are.
    `has_client_calls` is true once a call is the client's own.
    """

    def __init__(self, offered: frozenset[str]) -> None:
        self._offered = offered
        self._numbering = CallNumbering()
        self._indexes: dict[int, int] = {}
        self._next_index: dict[int, int] = {}
        self._choices_with_hidden: set[int] = set()
        self.unnamed: set[int] = set()
        self.has_client_calls = False

    @property
    def has_hidden_calls(self) -> bool:
        return bool(self._choices_with_hidden)

    @property
    def has_only_hidden_calls(self) -> bool:
        return self.has_hidden_calls and not self.has_client_calls and not self.unnamed

    def call_number(self, choice: int, position: int, piece: Any) -> int:
        """Returns the number, from 0, of the call to which a piece at a position in its chunk belongs."""
        number, name = self._numbering.call_number(choice, position, piece), call_name(piece)
        if number not in self._indexes and name:
            self.unnamed.discard(number)
            self._indexes[number] = self._assign_index(choice, name, piece.get("index"))
        elif number not in self._indexes:
            self.unnamed.add(number)
        return number

    def _assign_index(self, choice: int, name: str, upstream_index: Any) -> int:
        """A call keeps the upstream's index as long as no earlier call is hidden."""
        if name in self._offered:
            self._choices_with_hidden.add(choice)
            return _HIDDEN
        self.has_client_calls = True
        is_kept = isinstance(upstream_index, int) and choice not in self._choices_with_hidden
        index: int = upstream_index if is_kept else self._next_index.get(choice, 0)
        self._next_index[choice] = index + 1
        return index

    def is_hidden(self, number: int) -> bool:
        return self._indexes.get(number) == _HIDDEN

    def with_client_index(self, number: int, piece: bytes) -> bytes:
        """Returns a piece of a streamed call with the index that the client sees."""
        index = b"%d" % self._indexes.get(number, number)
        return (
            piece
            if body.object_members(piece).get("index") == index
            else body.set_field(piece, "index", index)
        )
