"""Sessions, and the records behind the numbers of other pages."""

from __future__ import annotations

from flask import Response

from ...reading import interceptions as records
from ...reading import search
from ...reading.connection import Source
from ...reading.pages import Page
from ...reading.sessions import list_sessions
from ..api.blueprint import ID
from . import filters
from .blueprint import Question, UiBlueprint, Visit
from .filters import Filters
from .numbers import iso
from .pages import render
from .sums import WORDS
from .tables import decode, paging, position, rows_of
from .texts import TextBudget

_ROWS = 50
_DAYS = 30
_MAX_TEXT_BYTES = 2 << 20


def add_sessions(blueprint: UiBlueprint) -> None:
    @blueprint.page("/sessions")
    def sessions(visit: Visit) -> Question | Response:
        found, offset = filters.parse(visit.arguments, _DAYS), position(visit.arguments)

        def page(source: Source) -> str:
            listing = list_sessions(source, visit.actor, within(found), Page(_ROWS, offset))
            context = {"rows": rows_of(listing), "filters": found, **paging(listing, offset)}
            return render("sessions.html", visit, title="Sessions", words=WORDS, **context)

        return page

    @blueprint.page("/interceptions")
    def interceptions(visit: Visit) -> Question | Response:
        found, offset = filters.parse(visit.arguments, _DAYS), position(visit.arguments)

        def page(source: Source) -> str:
            listing = records.interceptions(source, visit.actor, within(found), Page(_ROWS, offset))
            context = {"rows": rows_of(listing), "filters": found, **paging(listing, offset)}
            return render("interceptions.html", visit, title="Requests", words=WORDS, **context)

        return page

    @blueprint.page(f"/interceptions/<{ID}:id>")
    def interception(visit: Visit, id: str) -> Question | Response:
        def page(source: Source) -> str:
            row = decode(records.interception(source, visit.actor, id))
            text = TextBudget(_MAX_TEXT_BYTES).block
            return render("interception.html", visit, title="One request", row=row, text=text)

        return page


def within(found: Filters) -> search.Search:
    """Returns the search with the period in it."""
    times = [("started_after", iso(found.after)), *(("started_before", iso(end)) for end in found.before)]
    return search.Search((*found.search.terms, *times))
