"""Names that filters offer: models, clients, groups."""

from __future__ import annotations

from collections.abc import Sequence

from ..model import Actor
from .connection import Source, connected
from .grouping import grouped
from .pages import Page
from .search import Search
from .usage import Question
from .usage_rows import key_rows


def names(source: Source, actor: Actor, kind: str, search: Search, page: Page) -> Sequence[str]:
    """Returns the different names of a `kind` in the interceptions that match, in alphabetical order.

    `kind` is one of the keys that usage is grouped by.
    """
    scope = Question((kind,), search).scope(actor, source.dialect.name)
    with connected(source) as connection:
        query = grouped(key_rows(scope), (kind,), scope.dialect, lambda columns: ())
        name = query.selected_columns[0]
        paged = query.where(name != "").order_by(name).limit(page.limit).offset(page.offset)
        return connection.scalars(paged).all()
