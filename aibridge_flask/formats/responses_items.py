"""OpenAI Responses: decides which items of a response the client sees, and whether the bridge must run tools
after it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import body

_ENCRYPTED = "encrypted_content"
_HOSTED_CALLS = (
    "web_search_call",
    "file_search_call",
    "code_interpreter_call",
    "image_generation_call",
    "mcp_call",
)


@dataclass(frozen=True, slots=True)
class VisibleItems:
    """`offered_ids` are the offered tools' names. `strips_encrypted`: the client did not ask for encrypted
    reasoning. `is_unlinked`: no later request refers to the response by its id."""

    offered_ids: frozenset[str]
    strips_encrypted: bool
    is_unlinked: bool = False

    def is_offered_call(self, item: Mapping[str, Any]) -> bool:
        is_call = body.get_string(item, "type") == "function_call"
        return is_call and body.get_string(item, "name") in self.offered_ids

    def is_for_client(self, item: Mapping[str, Any]) -> bool:
        """Whether the response must be shown because of this item: it is neither reasoning nor an offered
        call."""
        return body.get_string(item, "type") != "reasoning" and not self.is_offered_call(item)

    def must_strip(self, item: Mapping[str, Any]) -> bool:
        return self.strips_encrypted and body.get_string(item, "type") == "reasoning" and _ENCRYPTED in item

    def filter_items(self, items: Iterable[bytes]) -> list[bytes]:
        """Returns the JSON of the items that the client sees."""
        decoded = [(raw, body.loads(raw)) for raw in items]
        return [self.strip(raw, item) for raw, item in decoded if not self.is_offered_call(item)]

    def strip(self, raw: bytes, item: Mapping[str, Any]) -> bytes:
        """Returns the item's JSON without encrypted reasoning that the client did not ask for."""
        if not self.must_strip(item):
            return raw
        members = body.split_members(raw)
        del members[_ENCRYPTED]
        return body.join_members(members)

    def awaits_offered_tools(self, items: Sequence[bytes]) -> bool:
        """Whether the model waits for offered tools, and for nothing else."""
        decoded = [body.loads(raw) for raw in items]
        with_output = {
            body.get_string(item, "call_id") for item in decoded if _type_ends_with(item, "_output")
        }
        calls = [item for item in decoded if _awaits_output(item, with_output)]
        return bool(calls) and all(map(self.is_offered_call, calls))


def _type_ends_with(item: Any, suffix: str) -> bool:
    return body.get_string(item, "type").endswith(suffix)


def _awaits_output(item: Any, with_output: set[str]) -> bool:
    """Whether an item is a call that waits for its output.

    Calls that the API runs itself do not: their type is known, or their output is in the same response
    (`with_output` are the ids of such calls). A call of an unknown type does.
    """
    if _type_ends_with(item, "mcp_approval_request"):
        return True
    is_hosted = (
        body.get_string(item, "type") in _HOSTED_CALLS or body.get_string(item, "call_id") in with_output
    )
    return _type_ends_with(item, "_call") and not is_hosted
