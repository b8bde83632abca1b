"""Searches the prompts."""

from __future__ import annotations

import sqlalchemy as sa

from ..records.tables import interceptions, user_prompts


def text_condition(dialect: str, text: str) -> sa.ColumnElement[bool]:
    """Returns the condition that an interception's prompt has all words of `text`, in any order."""
    has_words = [user_prompts.c.prompt.icontains(word, autoescape=True) for word in text.split()]
    matching = sa.select(user_prompts.c.interception_id).where(*has_words)
    return interceptions.c.id.in_(matching)
