"""What clients ask for beside the conversation: a title for it, or a shorter version of it.

The words are the client's, not the user's, or they repeat the user's. Seen from Claude Code 2.1 and
OpenCode 1.18.
"""

from __future__ import annotations

from typing import Any

import msgspec

from . import body, prompt

TITLE, COMPACTION = "title", "compaction"
_COMPACTION_WORDS = "CRITICAL: Respond with TEXT ONLY"
_TITLE_WORDS = "Generate a title for this conversation"
_NONE = (b"null", b"[]")


def kind_of(messages: Any, last_text: str, tools: Any, output_config: Any = None) -> str:
    """Returns the kind that a request looks like, "" for one of the conversation.

    `last_text` is the user's last one, `output_config` that of the Messages API. Titles are asked for without
    tools.
    """
    if last_text.lstrip().startswith(_COMPACTION_WORDS):
        return COMPACTION
    if bytes(tools) not in _NONE if isinstance(tools, msgspec.Raw) else tools:
        return ""
    is_title = _asks_for_title(output_config) or _first_text(messages).lstrip().startswith(_TITLE_WORDS)
    return TITLE if is_title else ""


def _asks_for_title(output_config: Any) -> bool:
    """Whether the answer is to be an object with a title alone."""
    schema = body.get_object(body.get_object(output_config, "format"), "schema")
    return list(body.get_object(schema, "properties")) == [TITLE]


def _first_text(messages: Any) -> str:
    """Returns the first text of the first message of the user."""
    for raw in messages if isinstance(messages, list) else []:
        message = body.decode_raw(raw)
        if isinstance(message, body.OBJECT) and message.get("role") == "user":
            return next(iter(prompt.user_texts(message)), "")
    return ""
