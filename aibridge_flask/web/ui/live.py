"""Live: what runs now; administrators may stop it."""

from __future__ import annotations

from flask import Response
from msgspec.structs import asdict

from ...reading.csv_file import write_csv
from ...records.live import Listed
from ..api.blueprint import ID
from ..api.errors import Refused
from ..api.live import Live
from .blueprint import Question, UiBlueprint, Visit, html, see
from .csv import download
from .pages import render


def add_live(blueprint: UiBlueprint, running: Live) -> None:
    @blueprint.page("/live")
    def live(visit: Visit) -> Question | Response:
        found = running.seen_by(visit.actor)
        shown = {"rows": found.results, "is_away": found.own_worker_only}
        return html(render("live.html", visit, title="Live", **shown))

    @blueprint.page("/csv/live")
    def live_csv(visit: Visit) -> Question | Response:
        rows = map(asdict, running.seen_by(visit.actor).results)
        return download(blueprint, "live", write_csv(Listed.__struct_fields__, rows))

    @blueprint.page(f"/live/<{ID}:id>/stop", "POST")
    def stop_live(visit: Visit, id: str) -> Question | Response:
        if not visit.actor.admin:
            raise Refused(403, "Only administrators may stop what runs.", "Ask one.")
        running.stop(visit.actor, id)
        return see(f"{visit.ui}/live")
