"""OpenAI Chat Completions: to which tool call of a response a piece belongs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import body

_NEW = -1


class CallNumbering:
    """Numbers a response's tool calls, which arrive in pieces identified by an index.

    Some upstreams send no index, some send the same index for all calls. Then a new id starts a new call; if
    there are no ids, a name does after the arguments of a whole call.
    """

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, int], int] = {}
        self._ids: list[tuple[int, str]] = []
        self._arguments: list[list[str]] = []

    def call_number(self, choice: int, position: int, piece: Any) -> int:
        """Returns the number, from 0, of the call to which a piece at a position in its chunk belongs."""
        index = piece.get("index") if isinstance(piece, Mapping) else None
        key, id = (choice, index if isinstance(index, int) else ~position), body.get_string(piece, "id")
        number = self._numbers.get(key, _NEW)
        if call_name(piece):
            number = _NEW if number != _NEW and self._is_next(number, id, piece) else number
        elif id and (number == _NEW or self._ids[number][1] != id) and (choice, id) in self._ids:
            number = self._ids.index((choice, id))
        if number == _NEW:
            number = len(self._ids)
            self._ids.append((choice, id))
            self._arguments.append([])
        self._numbers[key] = number
        self._ids[number] = (choice, self._ids[number][1] or id)
        self._arguments[number].append(_arguments(piece))
        return number

    def _is_next(self, number: int, id: str, piece: Any) -> bool:
        """Whether a piece with a name begins the call after this one."""
        own, arguments = self._ids[number][1], self._arguments[number]
        if (id and own) or not arguments[-1].endswith("}"):
            return bool(id and own) and id != own
        is_whole = isinstance(body.loads("".join(arguments).encode(errors="replace")), dict)
        return is_whole and bool(id or _arguments(piece))


def call_name(piece: Any) -> str:
    """Returns the name of the called tool; "" in most pieces, which do not contain it."""
    function, custom = body.get_object(piece, "function"), body.get_object(piece, "custom")
    return body.get_string(function, "name") or body.get_string(custom, "name")


def _arguments(piece: Any) -> str:
    return body.get_string(body.get_object(piece, "function"), "arguments")
