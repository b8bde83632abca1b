"""One description of a dialogue on tools for every format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.support.server import Server

Json = dict[str, Any]
ADD = "bmcp_docs_add"  # the id under which the bridge offers the tool `add` of the MCP server `docs`
PROMPT = "1 + 2?"
GATEWAY_TOKEN = "aib_0123456789"
COPILOT_TOKEN = "Bearer tid_0123456789"


@dataclass(frozen=True)
class Call:
    """A tool call; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str = "{}"


@dataclass(frozen=True)
class Answer:
    """An answer of the model. `input_tokens` leaves out the cached ones; `is_cut`: it reached its limit."""

    id: str
    calls: tuple[Call, ...] = ()
    text: str = ""
    thought: str = ""
    is_cut: bool = False
    input_tokens: int = 10
    cached_tokens: int = 2
    output_tokens: int = 5


@dataclass(frozen=True)
class View:
    """An answer as the client reads it: the parts of one kind are joined."""

    id: str
    text: str
    thoughts: str
    calls: list[tuple[str, str, str]]
    finish: str
    usage: Json


OFFERED_CALL = Call("call_1", ADD, '{"a": 1,"b":2}')
CLIENT_CALL = Call("call_2", "grep", '{"for":"x"}')
CALLS_QUIETLY = Answer("answer_1", (OFFERED_CALL,), thought="hm")
CALLS = Answer("answer_1", (OFFERED_CALL,), text="Let me add. ", thought="hm")
ENDS = Answer("answer_2", text="It is 3.", thought="so", input_tokens=20, output_tokens=6)
WHOLE_TEXT = "Let me add. It is 3."


def newest_record(server: Server) -> Json:
    """The newest interception, once it has ended."""
    return server.record(server.newest()["id"])


def outcomes(record: Json) -> list[tuple[str, str]]:
    """The calls of a record with their errors."""
    return [(use["tool_call_id"], use["invocation_error"]) for use in record["tool_usages"]]
