"""The user's own words among a request's messages.

Clients put things of their own last: Claude Code a system message, and blocks of reminders
inside the user's message. These are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..model import EMPTY
from . import body

_ASIDE = ("system", "developer")
_REMINDER = "<system-reminder>"


def last_message(messages: Any) -> Mapping[str, Any]:
    """The last message that is not the client's aside; only as many as needed are decoded."""
    for raw in reversed(messages if isinstance(messages, list) else []):
        message = body.value(raw)
        if body.get_string(message, "role") not in _ASIDE:
            return message if isinstance(message, Mapping) else EMPTY
    return EMPTY


def texts(message: Mapping[str, Any]) -> list[str]:
    """The user's own text blocks of a message, in order."""
    content = message.get("content")
    blocks = [{"text": content}] if isinstance(content, str) else body.get_array(message, "content")
    found = (body.get_string(block, "text") for block in blocks)
    return [text for text in found if text and not text.lstrip().startswith(_REMINDER)]


def last_text(message: Mapping[str, Any]) -> str:
    """The last of a user message's own texts; nothing for other roles."""
    own = texts(message) if message.get("role") == "user" else []
    return own[-1] if own else ""
