"""Dialogues on tools in the three formats: one description of an answer, three ways to write and read it.

`Answer` says what the upstream's model answers, `View` what the client makes of the bridge's answer. A
dialect writes the one and reads the other in its format. Tests that hold for every format take a dialect.
"""

from __future__ import annotations

from tests.support.tool_dialects.chat import ChatDialect
from tests.support.tool_dialects.dialect import ToolDialect
from tests.support.tool_dialects.dialogue import (
    ADD,
    CALLS,
    CALLS_QUIETLY,
    CLIENT_CALL,
    COPILOT_TOKEN,
    ENDS,
    GATEWAY_TOKEN,
    OFFERED_CALL,
    PROMPT,
    WHOLE_TEXT,
    Answer,
    Call,
    View,
    newest_record,
    outcomes,
)
from tests.support.tool_dialects.messages import MessagesDialect
from tests.support.tool_dialects.responses import ResponsesDialect

MESSAGES, CHAT, RESPONSES = MessagesDialect(), ChatDialect(), ResponsesDialect()
DIALECTS: tuple[ToolDialect, ...] = (MESSAGES, CHAT, RESPONSES)

__all__ = [
    "ADD",
    "CALLS",
    "CALLS_QUIETLY",
    "CHAT",
    "CLIENT_CALL",
    "COPILOT_TOKEN",
    "DIALECTS",
    "ENDS",
    "GATEWAY_TOKEN",
    "MESSAGES",
    "OFFERED_CALL",
    "PROMPT",
    "RESPONSES",
    "WHOLE_TEXT",
    "Answer",
    "Call",
    "ToolDialect",
    "View",
    "newest_record",
    "outcomes",
]
