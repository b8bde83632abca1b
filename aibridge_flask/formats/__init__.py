"""The three wire formats: pure functions on bytes. No I/O, no Flask, no clock, no logging.

A fourth format is one module and one line here.
"""

from __future__ import annotations

from typing import cast

from ..protocols import Format
from . import chat as _chat
from . import compaction as _compaction
from . import messages as _messages
from . import responses as _responses
from .estimates import input_tokens as estimated_input
from .failures import error_type_of, parse_error
from .tap import DecodingFold, error_fold
from .tool_results import failure_text

__all__ = [
    "CHAT",
    "COMPACTION",
    "MESSAGES",
    "RESPONSES",
    "DecodingFold",
    "error_fold",
    "error_type_of",
    "estimated_input",
    "failure_text",
    "parse_error",
]

# The modules satisfy the Protocol with their functions, but mypy expects `self` in a Protocol's methods.
MESSAGES = cast(Format, _messages)
CHAT = cast(Format, _chat)
RESPONSES = cast(Format, _responses)
COMPACTION = cast(Format, _compaction)
