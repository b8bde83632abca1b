"""Questions for lists of sessions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, RowMapping

from ..model import Actor
from ..records.sum_tables import TOKENS, session_usage, sessions, usage_hourly
from ..records.tables import interceptions, user_prompts
from .connection import Source, connected
from .errors import BadQuestion
from .pages import Listing, Page, before, count_and_page, listing
from .search import Condition, Search
from .session_search import matching, visible_to
from .values import MAX_TEXT_BYTES, initiator, json_value

Result = dict[str, Any]
_s, _i, _u = sessions.c, interceptions.c, usage_hourly.c
_ORDER = (_s.last_active_at, _s.key)
_BATCH_ROWS = 20  # their prompts may have megabytes


def list_sessions(source: Source, actor: Actor, search: Search, page: Page) -> Listing:
    """Returns a page of sessions, the last active first. Raises BadQuestion.

    `after_id` is a session's id. Actors may have sessions of one id: an administrator's page that ends with
    one of these names it as `id~key`.
    """
    with connected(source) as connection:
        match = matching(connection, search, actor, page.offset)
        ordered = sa.select(_s.key).where(*match.conditions).order_by(*(column.desc() for column in _ORDER))
        following = [ordered.where(_after(connection, actor, page.after_id))] if page.after_id else []
        count, found = count_and_page(connection, ordered, page, following, match.are_many)
        rows = _rows(connection, [key for (key,) in found])
        names = _page_names(connection, actor, rows)
        return listing(count, names, described(connection, rows[: page.limit]), page.limit)


def _rows(connection: Connection, keys: Sequence[int]) -> list[RowMapping]:
    """Returns the rows in the order of the keys."""
    by_key = {
        row["key"]: row for row in connection.execute(sa.select(sessions).where(_s.key.in_(keys))).mappings()
    }
    return [by_key[key] for key in keys if key in by_key]


def described(connection: Connection, rows: Sequence[RowMapping]) -> Iterator[Result]:
    """Yields sessions as they stand in answers, of rows of `sessions`."""
    for start in range(0, len(rows), _BATCH_ROWS):
        batch = rows[start : start + _BATCH_ROWS]
        keys = [row["key"] for row in batch]
        models, subagents = _models(connection, keys), _subagents(connection, keys)
        prompts = _prompts(connection, [row["prompt_of"] for row in batch if row["prompt_of"]])
        for row in batch:
            used = models.get(row["key"], set())
            yield {
                **_to_result(row),
                "providers": sorted({provider for provider, _ in used}),
                "models": sorted({model for _, model in used}),
                "subagents": subagents.get(row["key"], 0),
                "last_prompt": prompts.get(row["prompt_of"], ""),
            }


def cost_of(cost: int | None, requests: int, unpriced: int) -> int | None:
    """Returns a sum of costs, None if no price is known of anything in it.

    >>> cost_of(0, 2, 2), cost_of(5, 2, 1), cost_of(0, 0, 0)
    (None, 5, 0)
    """
    return None if requests and requests == unpriced and not cost else cost


def _to_result(row: RowMapping) -> Result:
    has_ended = row["ended"] >= row["requests"]
    return {
        "id": row["id"],
        "initiator": initiator(row["initiator_id"], row["metadata"]),
        "client": row["client"],
        "metadata": row["metadata"],
        "started_at": json_value(row["started_at"]),
        "ended_at": json_value(row["last_active_at"]) if has_ended else None,
        "last_active_at": json_value(row["last_active_at"]),
        "threads": row["threads"],
        "requests": row["requests"],
        "errors": row["errors"],
        "unpriced_requests": row["unpriced_requests"],
        "token_usage_summary": {name: row[name] for name in TOKENS},
        "cost_micros": cost_of(row["cost_micros"], row["requests"], row["unpriced_requests"]),
    }


def _models(connection: Connection, keys: Sequence[int]) -> dict[int, set[tuple[str, str]]]:
    """Returns the (provider, model) of each session, those of running interceptions too."""
    pair = session_usage.c
    ended = (
        sa.select(pair.session_key, _u.provider, _u.model)
        .join(usage_hourly, _u.id == pair.usage_id)
        .where(pair.session_key.in_(keys))
    )
    running = sa.select(_i.session_key, _i.provider, _i.model).where(
        _i.session_key.in_(keys), _i.ended_at.is_(None)
    )
    found: dict[int, set[tuple[str, str]]] = {}
    for key, provider, model in connection.execute(sa.union(ended, running)):
        found.setdefault(key, set()).add((provider, model))
    return found


def _subagents(connection: Connection, keys: Sequence[int]) -> dict[int, int]:
    """Returns how many agents beside the main one each session had."""
    is_one = (_i.session_key.in_(keys), _i.agent_id != sa.literal_column("''"))  # as the index has it
    query = sa.select(_i.session_key, sa.func.count(_i.agent_id.distinct())).where(*is_one)
    return dict(tuple(row) for row in connection.execute(query.group_by(_i.session_key)))


def _prompts(connection: Connection, ids: Sequence[str]) -> dict[str, str]:
    p = user_prompts.c
    text = sa.func.substr(p.prompt, 1, MAX_TEXT_BYTES + 1)
    query = sa.select(p.interception_id, text).where(p.interception_id.in_(ids))
    return dict(tuple(row) for row in connection.execute(query)) if ids else {}


def _after(connection: Connection, actor: Actor, name: str) -> Condition:
    id, _, key = name.rpartition("~")
    is_it = _s.id == name
    if key.isascii() and key.isdigit() and len(key) < 20:
        is_it = sa.or_(is_it, sa.and_(_s.id == id, _s.key == int(key)))
    query = sa.select(*_ORDER).where(is_it, *visible_to(actor)).order_by(_s.last_active_at.desc())
    row = None if "\0" in name else connection.execute(query.limit(1)).first()
    if row is None:
        raise BadQuestion("after_session_id", "there is no such session")
    return before(_ORDER, row)


def _page_names(connection: Connection, actor: Actor, rows: Sequence[RowMapping]) -> list[str]:
    """Returns what the page may be continued after, for each row."""
    if not actor.admin:
        return [row["id"] for row in rows]
    ids = sa.select(_s.id).where(_s.id.in_({row["id"] for row in rows})).group_by(_s.id)
    shared = set(connection.scalars(ids.having(sa.func.count() > 1)))
    return [f"{row['id']}~{row['key']}" if row["id"] in shared else row["id"] for row in rows]
