"""The tables as CSV: whole, with the filters of their pages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

from flask import Response
from sqlalchemy import Engine

from ...model import Actor
from ...reading import interceptions as records
from ...reading import tokens as token_queries
from ...reading import tools as tool_queries
from ...reading.csv_file import write_csv
from ...reading.errors import BadQuestion
from ...reading.pages import Listing, Page
from ...reading.sessions import list_sessions
from ...reading.usage import PERCENTILES, every_usage
from ...reading.usage import Question as UsageQuestion
from ...reading.usage_rows import TOOL_SUMS
from ...records.sum_tables import AMOUNTS, TOKENS
from ..api.limits import own_standings
from . import filters
from .blueprint import Question, UiBlueprint, Visit, csv_response
from .filters import Filters
from .limits import amount_of
from .sessions import within
from .sums import WORDS
from .tables import Row, rows_of

_SECONDS = 60.0
_MAX_KEYS = 2
_MAX_ROWS = 100_000
_PAGE = 500
_SESSION = (
    "id",
    "initiator",
    "client",
    "started_at",
    "last_active_at",
    "threads",
    "subagents",
    "requests",
    "errors",
    *TOKENS,
    "cost_micros",
)
_RECORD = (
    *(
        "id",
        "started_at",
        "initiator_id",
        "client",
        "provider_name",
        "model",
        "session_id",
        "agent_id",
        "kind",
    ),
    *(
        "status_code",
        "error_type",
        "attempts",
        "first_byte_ms",
        "duration_ms",
        *TOKENS,
        "cost_micros",
        "cost_status",
    ),
)
_LIMIT = ("name", "of", "amount", "per", "mode", "spent", "held", "expected", "resets_at")
_TOKEN = ("id", "user", "groups", "admin", "hint", "created_at", "expires_at", "revoked_at", "last_used_at")


def add_csv(blueprint: UiBlueprint) -> None:
    @blueprint.page("/csv/<name>")
    def csv(visit: Visit, name: str) -> Question | Response:
        if name not in _TABLES:
            raise BadQuestion("path", f"one of {', '.join(_TABLES)} is expected")
        found = filters.parse(visit.arguments)
        keys = tuple(key for key in visit.arguments.get("group_by", "").split(",") if key)[:_MAX_KEYS]
        if not set(keys) <= set(WORDS):
            raise BadQuestion("group_by", f"one of {', '.join(WORDS)} is expected")

        def write(engine: Engine) -> IO[bytes]:
            return write_csv(*_TABLES[name](engine, visit.actor, found, keys))

        return csv_response(blueprint, name, blueprint.reader.ask(write, seconds=_SECONDS))


Table = tuple[Sequence[str], Iterable[Row]]


def _usage(engine: Engine, actor: Actor, found: Filters, keys: tuple[str, ...]) -> Table:
    question = UsageQuestion(keys, found.search, found.period)
    return (*keys, *AMOUNTS, "sessions", *PERCENTILES), every_usage(engine, actor, question)


def _tools(engine: Engine, actor: Actor, found: Filters, keys: tuple[str, ...]) -> Table:
    question = UsageQuestion(keys, found.search, found.period)
    names = (*keys, *tool_queries.TOOL_KEYS, *TOOL_SUMS)
    return names, tool_queries.every_tool(engine, actor, question)


def _sessions(engine: Engine, actor: Actor, found: Filters, keys: tuple[str, ...]) -> Table:
    def page(after: str) -> Listing:
        return list_sessions(engine, actor, within(found), Page(_PAGE, after_id=after))

    return _SESSION, (
        {**row, **row["token_usage_summary"], "initiator": row["initiator"]["id"]} for row in _every(page)
    )


def _records(engine: Engine, actor: Actor, found: Filters, keys: tuple[str, ...]) -> Table:
    def page(after: str) -> Listing:
        return records.interceptions(engine, actor, within(found), Page(_PAGE, after_id=after))

    return _RECORD, ({**row, **_added(row["token_usages"])} for row in _every(page))


def _added(usages: Sequence[Row]) -> dict[str, int]:
    return {name: sum(usage[name] for usage in usages) for name in TOKENS}


def _gateway_tokens(engine: Engine, actor: Actor, found: Filters, keys: tuple[str, ...]) -> Table:
    def page(after: str) -> Listing:
        return token_queries.list_tokens(engine, actor, Page(_PAGE, after_id=after))

    return _TOKEN, ({**row, "groups": ",".join(row["groups"])} for row in _every(page))


def _limits(engine: Engine, actor: Actor, found: Filters, keys: tuple[str, ...]) -> Table:
    rows = own_standings(engine, actor)
    return _LIMIT, ({**each, "amount": amount_of(each), **used} for each in rows for used in each["used"])


def _every(page: Any) -> Iterator[Row]:
    """Yields the rows of all pages of a list, up to a bound."""
    after, count = "", 0
    while count < _MAX_ROWS:
        listing = page(after)
        rows = rows_of(listing)
        yield from rows
        count, after = count + len(rows), listing.next_after_id
        if not after:
            return


_TABLES = {
    "usage": _usage,
    "tools": _tools,
    "sessions": _sessions,
    "interceptions": _records,
    "tokens": _gateway_tokens,
    "limits": _limits,
}
