"""The search language of the records API: `key:value key:"quoted value"`.

>>> parse('provider:openai model:"gpt 5"').terms
(('provider', 'openai'), ('model', 'gpt 5'))
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from ..records.tables import interceptions

_TERM = re.compile(r'\s*([A-Za-z_]+):(?:"([^"]*)"|([^\s"]\S*))(?=\s|$)')
_COLUMNS = {
    "initiator": interceptions.c.initiator_id,
    "provider": interceptions.c.provider,
    "provider_name": interceptions.c.provider_name,
    "model": interceptions.c.model,
    "client": interceptions.c.client,
    "kind": interceptions.c.kind,
}
_MAX_TERMS = 50
_TIMES = ("started_after", "started_before")
KEYS = (*_COLUMNS, "session_id", *_TIMES)


class BadSearch(ValueError):
    """The text is not in the search language. The message says where."""


@dataclass(frozen=True, slots=True)
class Search:
    """A parsed search: (key, value) pairs, all of which must match."""

    terms: tuple[tuple[str, str], ...] = ()

    def conditions(self, me: str) -> list[sa.ColumnElement[bool]]:
        """Returns SQL conditions; `me` is the asking actor's id. Raises BadSearch on an invalid time."""
        return [_condition(key, value, me) for key, value in self.terms]


def parse(text: str) -> Search:
    """Parses a search. Raises BadSearch."""
    if "\0" in text:  # PostgreSQL refuses it
        raise BadSearch("a NUL character matches nothing")
    terms: list[tuple[str, str]] = []
    position = 0
    while position < len(text.rstrip()):
        match = _TERM.match(text, position)
        if match is None:
            raise BadSearch(f"not understood from position {position}: key:value is expected")
        key, quoted, plain = match.groups()
        if key not in KEYS:
            raise BadSearch(f"{key!r} is not a key: one of {', '.join(KEYS)} is expected")
        if len(terms) >= _MAX_TERMS:
            raise BadSearch(f"at most {_MAX_TERMS} terms are expected")
        terms.append((key, quoted if quoted is not None else plain))
        position = match.end()
    return Search(tuple(terms))


def _condition(key: str, value: str, me: str) -> sa.ColumnElement[bool]:
    if key in _TIMES:
        time = _parse_time(key, value)
        started = interceptions.c.started_at
        return started >= time if key == "started_after" else started < time
    if key == "session_id":
        return _in_session(value)
    wanted = me if key == "initiator" and value == "me" else value
    return _COLUMNS[key] == wanted


def _in_session(id: str) -> sa.ColumnElement[bool]:
    """A session's id is the client's, else its thread's root, else its own. Each is indexed."""
    c = interceptions.c
    has_no_client_id = c.client_session_id == ""
    return sa.or_(
        sa.and_(c.client_session_id == id, c.client_session_id != ""),
        sa.and_(has_no_client_id, c.thread_root_id == id),
        sa.and_(has_no_client_id, c.thread_root_id.is_(None), c.id == id),
    )


def _parse_time(key: str, value: str) -> datetime:
    try:
        time = datetime.fromisoformat(value)
        if time.tzinfo is None:
            raise BadSearch(f"{key}: a time with its zone is expected (RFC 3339)")
        return time.astimezone(UTC)
    except BadSearch:
        raise
    except (ValueError, OverflowError):
        raise BadSearch(f"{key}: a time such as 2026-01-31T12:00:00Z is expected") from None
