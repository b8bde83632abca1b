"""Finds prompts by their words.

>>> _words("Fix  src/app.py's caf\u00e9, plea")
[['Fix'], ['src', 'app', 'py', 's'], ['café'], ['plea']]
"""

from __future__ import annotations

import re

import sqlalchemy as sa

from ..records import text_index
from ..records.rows import clean_text
from ..records.tables import user_prompts

_MAX_CHARACTERS = 4000
_MAX_WORDS = 50
_MAX_PARTS = 20  # of a word: PostgreSQL keeps few positions of each word
_MAX_WORD_BYTES = 2046  # a longer one is not in PostgreSQL's index
_SEPARATORS = re.compile(r"[\x00-\x2f:-@\[-`{-\x7f]+")  # all of ASCII but letters and digits


def with_text(dialect: str, text: str) -> sa.Select[tuple[str]]:
    """Returns the ids of interceptions whose prompt has all words of the text, in any order.

    The last word may be the beginning of one. A word with punctuation in it, such as a path, must be there
    with its parts in this order. Of a text with more than 50 words, or 4000 characters, the first count. One
    without words matches nothing.
    """
    words = _words(text)
    if not words or any(len(part.encode()) > _MAX_WORD_BYTES for parts in words for part in parts):
        return sa.select(user_prompts.c.interception_id).where(sa.false())
    return _on_sqlite(words) if dialect == "sqlite" else _on_postgresql(words)


def _words(text: str) -> list[list[str]]:
    """Returns the words, each as its parts. None holds a quote or an operator."""
    words = clean_text(text[:_MAX_CHARACTERS]).split(maxsplit=_MAX_WORDS)[:_MAX_WORDS]
    parts = ([part for part in _SEPARATORS.split(word) if part][:_MAX_PARTS] for word in words)
    return [word for word in parts if word]


def _on_sqlite(words: list[list[str]]) -> sa.Select[tuple[str]]:
    """https://www.sqlite.org/fts5.html#full_text_query_syntax: a phrase in quotes, `*` for a prefix."""
    query = " ".join(f'"{" ".join(word)}"' for word in words) + "*"
    numbers = sa.select(text_index.SEARCH.c.rowid).where(text_index.SEARCH.c.prompt_search.op("MATCH")(query))
    documents = text_index.DOCUMENTS.c
    return sa.select(documents.interception_id).where(documents.id.in_(numbers))


def _on_postgresql(words: list[list[str]]) -> sa.Select[tuple[str]]:
    """https://www.postgresql.org/docs/current/datatype-textsearch.html#DATATYPE-TSQUERY"""
    query = " & ".join(" <-> ".join(f"'{part}'" for part in word) for word in words) + ":*"
    vector: sa.ColumnElement[str] = sa.literal_column(text_index.VECTOR)
    matches = vector.op("@@")(sa.func.to_tsquery(sa.literal_column("'simple'"), query))
    return sa.select(user_prompts.c.interception_id).where(matches)
