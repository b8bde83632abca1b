"""Limits: what may be spent, and how much of it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Engine

from ...model import Actor
from .blueprint import Question, UiBlueprint, Visit
from .pages import render

LimitRows = Callable[[Engine, Actor], Sequence[dict[str, Any]]]
"""Returns the limits that the actor may see, as the records API's `GET limits` lists them."""


def add_limits(blueprint: UiBlueprint, rows: LimitRows) -> None:
    @blueprint.page("/limits")
    def limits(visit: Visit) -> Question:
        return lambda engine: render("limits.html", visit, title="Limits", rows=rows(engine, visit.actor))
