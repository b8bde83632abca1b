"""Questions for the audit: who changed or looked at what."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import Connection

from ..records.sum_tables import audit
from .connection import Source, connected
from .errors import BadQuestion
from .pages import Listing, Page, before, count_of, listing
from .search import Condition
from .values import json_value

_c = audit.c
_ORDER = (_c.at, _c.id)


def list_audit(source: Source, page: Page) -> Listing:
    """Returns a page of the audit, newest first. Raises BadQuestion."""
    with connected(source) as connection:
        query = sa.select(audit)
        count = count_of(connection, query)
        if page.after_id:
            query = query.where(_after(connection, page.after_id))
        ordered = query.order_by(*(column.desc() for column in _ORDER))
        rows = connection.execute(ordered.limit(page.limit + 1).offset(page.offset)).mappings().all()
        results = ({name: json_value(value) for name, value in row.items()} for row in rows)
        return listing(count, [row["id"] for row in rows], results, page.limit)


def _after(connection: Connection, id: str) -> Condition:
    query = sa.select(_c.at).where(_c.id == id)
    at = None if "\0" in id else connection.scalar(query)
    if at is None:
        raise BadQuestion("after_id", "there is no such row")
    return before(_ORDER, (at, id))
