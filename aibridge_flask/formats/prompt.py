"""Finds what the user wrote among a request's messages.

Clients append content of their own: Claude Code adds a system message, and blocks with reminders inside the
user's message. These are skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..model import EMPTY
from . import body

_CLIENT_ROLES = ("system", "developer")
_REMINDER_TAG = "<system-reminder>"


def last_message(messages: Any) -> Mapping[str, Any]:
    """Returns the last message that is not a system message of the client.

    Decodes messages from the end, only as many as needed.
    """
    for raw in reversed(messages if isinstance(messages, list) else []):
        message = body.decode_raw(raw)
        if body.get_string(message, "role") not in _CLIENT_ROLES:
            return message if isinstance(message, Mapping) else EMPTY
    return EMPTY


def user_texts(message: Mapping[str, Any]) -> list[str]:
    """Returns a message's text blocks in order, without the client's reminders."""
    content = message.get("content")
    blocks = [{"text": content}] if isinstance(content, str) else body.get_array(message, "content")
    texts = (body.get_string(block, "text") for block in blocks)
    return [text for text in texts if text and not text.lstrip().startswith(_REMINDER_TAG)]


def last_user_text(message: Mapping[str, Any]) -> str:
    """Returns the last of a user message's texts; "" for other roles."""
    texts = user_texts(message) if message.get("role") == "user" else []
    return texts[-1] if texts else ""
