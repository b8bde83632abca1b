"""OpenAI Chat Completions: a response's message, in the form in which it is sent back to the API.

Strings are joined as they are in the JSON, with their escapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field

from .. import sse
from . import body
from .chat_numbering import CallNumbering
from .joined_json import Node, join, to_json
from .offering import NULL

_EMPTY = b'""'


@dataclass(slots=True)
class _StreamedCall:
    """`arguments` are the contents of JSON strings, without quotes; `members` are the call's others."""

    members: dict[str, bytes]
    name: bytes = _EMPTY
    arguments: list[bytes] = field(default_factory=list)

    def add_piece(self, piece: Mapping[str, bytes]) -> None:
        function = body.object_members(piece.get("function", NULL))
        self.name = function.get("name", _EMPTY) if self.name == _EMPTY else self.name
        self.arguments.append(strip_quotes(function.get("arguments", NULL)))
        for name, raw in piece.items():
            if name not in ("index", "function") and raw not in (NULL, _EMPTY):
                self.members.setdefault(name, raw)

    def to_json(self) -> bytes:
        """Empty arguments become the text `{}`: an API may parse them as JSON."""
        arguments = _quote(self.arguments)
        function = {"name": self.name, "arguments": b'"{}"' if arguments == _EMPTY else arguments}
        return body.join_members(
            {"id": _EMPTY, "type": b'"function"', **self.members, "function": body.join_members(function)}
        )


class AssistantMessage:
    """Collects what the model said, from a stream's deltas or from whole messages."""

    def __init__(self) -> None:
        self._members: dict[str, Node] = {}
        self._calls: dict[int, _StreamedCall] = {}
        self._numbering = CallNumbering()

    def before(self, message: Mapping[str, bytes]) -> dict[str, bytes]:
        """Returns the members of a later message, after what was said in this one."""
        texts = {name: node for name, node in self._members.items() if _is_said(name, node)}
        joined = {name: join(deepcopy(node), message.get(name, NULL), name) for name, node in texts.items()}
        return {**message, **{name: to_json(node) for name, node in joined.items()}}

    def to_json(self) -> bytes:
        """Returns the whole message: some upstreams expect their reasoning back in members of their own."""
        calls = b",".join([call.to_json() for call in self._calls.values()])
        said = {name: to_json(node) for name, node in self._members.items() if node}
        members = {"role": b'"assistant"', "content": NULL, **said}
        return body.join_members({**members, "tool_calls": b"[" + calls + b"]"})

    def add_events(self, batches: Iterable[bytes]) -> None:
        """Adds a stream's events; each batch is the bytes of whole events."""
        for events in batches:
            for event in sse.split(events):
                chunk = body.object_members(sse.parse(event).data)
                self.add_choices(member_elements(chunk, "choices"), "delta")

    def add_choices(self, choices: Iterable[bytes], member: str) -> None:
        """Adds the `member` (`delta` or `message`) of all choices: some upstreams split one response over
        several choices."""
        for raw in choices:
            choice = body.object_members(raw)
            self._add_message(body.index_of(choice), body.object_members(choice.get(member, NULL)))

    def _add_message(self, choice: int, message: Mapping[str, bytes]) -> None:
        for name, raw in message.items():
            if name == "tool_calls":
                for position, piece in enumerate(body.array_elements(raw)):
                    number = self._numbering.call_number(choice, position, body.loads(piece))
                    call = self._calls.setdefault(number, _StreamedCall({}))
                    call.add_piece(body.object_members(piece))
            elif name != "role" and raw[:1] in (b'"', b"[", b"{"):
                self._members[name] = join(self._members.get(name, NULL), raw)


def _is_said(name: str, node: Node) -> bool:
    """Whether a member is text that the client reads: the content, or reasoning."""
    return bool(node) and (isinstance(node, bytearray) or name == "content")


def member_elements(members: Mapping[str, bytes], name: str) -> list[bytes]:
    """Returns the elements of a member that should be an array; [] if it is anything else."""
    return body.array_elements(members.get(name, NULL))


def strip_quotes(raw: bytes) -> bytes:
    """Returns a JSON string's content as it is between the quotes; b"" if `raw` is not a string.

    >>> strip_quotes(b'"a"'), strip_quotes(b"null")
    (b'a', b'')
    """
    return raw[1:-1] if raw.startswith(b'"') else b""


def _quote(contents: Iterable[bytes]) -> bytes:
    return b'"' + b"".join(contents) + b'"'
