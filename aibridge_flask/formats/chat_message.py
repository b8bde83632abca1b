"""OpenAI Chat Completions: an answer's message, as it is sent back to the API.

Strings are put together as they stand in the JSON, escapes and all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .. import sse
from . import body
from .chat_reader import CallNumbering
from .offering import NULL

_EMPTY = b'""'


@dataclass(slots=True)
class _StreamedCall:
    """`arguments` are the insides of JSON strings; `members` are the call's other ones."""

    members: dict[str, bytes]
    name: bytes = _EMPTY
    arguments: list[bytes] = field(default_factory=list)

    def grow(self, piece: Mapping[str, bytes]) -> None:
        function = body.object_members(piece.get("function", NULL))
        self.name = function.get("name", _EMPTY) if self.name == _EMPTY else self.name
        self.arguments.append(inside(function.get("arguments", NULL)))
        for name, raw in piece.items():
            if name not in ("index", "function") and raw not in (NULL, _EMPTY):
                self.members.setdefault(name, raw)

    def to_json(self) -> bytes:
        """No arguments are none in JSON's words: an API may read them back as JSON."""
        arguments = _string(self.arguments)
        said = {"name": self.name, "arguments": b'"{}"' if arguments == _EMPTY else arguments}
        return body.join_members(
            {"id": _EMPTY, "type": b'"function"', **self.members, "function": body.join_members(said)}
        )


class Message:
    """Grows by a stream's deltas, or by whole messages."""

    def __init__(self) -> None:
        self._texts: dict[str, list[bytes]] = {}
        self._calls: dict[int, _StreamedCall] = {}
        self._pieces = CallNumbering()

    @property
    def texts(self) -> dict[str, bytes]:
        """What the model said: its content, and thoughts that some upstreams want back."""
        found = {name: _string(parts) for name, parts in self._texts.items()}
        return {name: text for name, text in found.items() if text != _EMPTY}

    def to_json(self) -> bytes:
        calls = b",".join([call.to_json() for call in self._calls.values()])
        said = {"role": b'"assistant"', "content": NULL, **self.texts}
        return body.join_members({**said, "tool_calls": b"[" + calls + b"]"})

    def take_stream(self, runs: Iterable[bytes]) -> None:
        for run in runs:
            for event in sse.split(run):
                self.take(elements(body.object_members(sse.parse(event).data), "choices"), "delta")

    def take(self, choices: Iterable[bytes], member: str) -> None:
        """All choices together: some upstreams split one answer over several."""
        for raw in choices:
            choice = body.object_members(raw)
            self._grow(body.index_of(choice), body.object_members(choice.get(member, NULL)))

    def _grow(self, choice: int, said: Mapping[str, bytes]) -> None:
        for name, raw in said.items():
            if name == "tool_calls":
                for position, piece in enumerate(body.elements(raw)):
                    number = self._pieces.number(choice, position, body.loads(piece))
                    self._calls.setdefault(number, _StreamedCall({})).grow(body.object_members(piece))
            elif name != "role" and raw.startswith(b'"'):
                self._texts.setdefault(name, []).append(inside(raw))


def elements(found: Mapping[str, bytes], name: str) -> list[bytes]:
    """Those of a member that is an array; none of anything else."""
    return body.elements(found.get(name, NULL))


def inside(raw: bytes) -> bytes:
    """What stands between a JSON string's quotes; nothing of anything else.

    >>> inside(b'"a"'), inside(b"null")
    (b'a', b'')
    """
    return raw[1:-1] if raw.startswith(b'"') else b""


def _string(insides: Iterable[bytes]) -> bytes:
    return b'"' + b"".join(insides) + b'"'
