"""Live: what runs now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Engine

from ...model import Actor
from .blueprint import Question, UiBlueprint, Visit
from .pages import render

LiveRows = Callable[[Engine, Actor], Sequence[dict[str, Any]]]
"""Returns what is in flight and the actor may see, as the records API's `GET live` lists it."""


def add_live(blueprint: UiBlueprint, rows: LiveRows) -> None:
    @blueprint.page("/live")
    def live(visit: Visit) -> Question:
        return lambda engine: render("live.html", visit, title="Live", rows=rows(engine, visit.actor))
