"""OpenAI Responses: what of an answer's items the client sees, and whose turn it is after them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import body

_ENCRYPTED = "encrypted_content"
_HOSTED = (
    "web_search_call",
    "file_search_call",
    "code_interpreter_call",
    "image_generation_call",
    "mcp_call",
)


@dataclass(frozen=True, slots=True)
class VisibleItems:
    """`ids` are the offered tools' names. `conceals`: the client did not ask for encrypted thoughts.
    `unlinked`: no later request refers to the response by its id."""

    ids: frozenset[str]
    strips_encrypted: bool
    unlinked: bool = False

    def is_offered(self, item: Mapping[str, Any]) -> bool:
        return body.get_string(item, "type") == "function_call" and body.get_string(item, "name") in self.ids

    def is_clients(self, item: Mapping[str, Any]) -> bool:
        """What an answer is shown for: anything but thoughts and offered calls."""
        return body.get_string(item, "type") != "reasoning" and not self.is_offered(item)

    def is_too_much(self, item: Mapping[str, Any]) -> bool:
        return self.strips_encrypted and body.get_string(item, "type") == "reasoning" and _ENCRYPTED in item

    def shown(self, items: Iterable[bytes]) -> list[bytes]:
        """The items, as they stand, that the client sees."""
        read = [(raw, body.loads(raw)) for raw in items]
        return [self.as_shown(raw, item) for raw, item in read if not self.is_offered(item)]

    def as_shown(self, raw: bytes, item: Mapping[str, Any]) -> bytes:
        if not self.is_too_much(item):
            return raw
        members = body.members(raw)
        del members[_ENCRYPTED]
        return body.join_members(members)

    def is_ours(self, items: Sequence[bytes]) -> bool:
        """Whether the model waits for offered tools alone."""
        read = [body.loads(raw) for raw in items]
        answered = {body.get_string(item, "call_id") for item in read if _is(item, "_output")}
        calls = [item for item in read if _is_open(item, answered)]
        return bool(calls) and all(map(self.is_offered, calls))


def _is(item: Any, ending: str) -> bool:
    return body.get_string(item, "type").endswith(ending)


def _is_open(item: Any, answered: set[str]) -> bool:
    """A call that waits for an answer. What the API runs itself does not: it is known by name, or its output
    stands beside it. A kind that nobody knows does."""
    if _is(item, "mcp_approval_request"):
        return True
    known = body.get_string(item, "type") in _HOSTED or body.get_string(item, "call_id") in answered
    return _is(item, "_call") and not known
