"""Limits: what may be spent, how much of it is, and until when; administrators make, change and end them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Response
from marshmallow import ValidationError

from ...config.limits import PERIODS, UNITS, LimitSchema, scope_of_text
from ...limits import changes
from ...limits.limiter import Limiter
from ...model import Actor
from ...reading.connection import Source
from ..api.blueprint import ID
from ..api.errors import InvalidParameters, Refused
from ..api.limits import own_standings, patch
from . import numbers
from .blueprint import Question, UiBlueprint, Visit, see
from .pages import render

_LISTS = ("models", "providers", "clients", "instead")
_WHOLE = {"usd": float, "tokens": int, "requests": int, "parallel": int}
_FULL = 100.0


def add_limits(blueprint: UiBlueprint, limiter: Limiter) -> None:
    @blueprint.page("/limits")
    def limits(visit: Visit) -> Question | Response:
        limiter.wait_until_known()
        return lambda source: _page(visit, source)

    @blueprint.page("/limits", "POST")
    def create_limit(visit: Visit) -> Question | Response:
        _require_admin(visit)
        try:
            settings = LimitSchema().load(_members(visit.form))
        except ValidationError as error:
            raise InvalidParameters(error.messages) from None
        return _changed(visit, lambda engine: changes.add(engine, settings, visit.actor.id))

    @blueprint.page(f"/limits/<{ID}:id>", "POST")
    def change_limit(visit: Visit, id: str) -> Question | Response:
        _require_admin(visit)
        return _changed(visit, lambda engine: patch(engine, id, _members(visit.form), visit.actor))

    @blueprint.page(f"/limits/<{ID}:id>/end", "POST")
    def end_limit(visit: Visit, id: str) -> Question | Response:
        _require_admin(visit)
        return _changed(visit, lambda engine: changes.end(engine, id, visit.actor.id))

    def _changed(visit: Visit, change: Any) -> Response:
        blueprint.reader.ask(change)
        limiter.refresh()
        return see(f"{visit.ui}/limits")


def amount_of(limit: Mapping[str, Any]) -> str:
    """Returns a limit's amount in words.

    >>> amount_of({"usd": 20.0}), amount_of({"parallel": 3})
    ('$20.00', '3 at a time')
    """
    unit = _unit(limit)
    if unit == "usd":
        return f"${limit[unit]:,.2f}"
    return f"{limit[unit]:,} {'at a time' if unit == 'parallel' else unit}"


def fullest(source: Source, actor: Actor, count: int) -> list[dict[str, Any]]:
    """Returns the accounts of limits by periods that are nearest to their end, each with its limit."""
    found = [_shown(limit) for limit in own_standings(source, actor) if limit.get("per")]
    accounts = [{**used, "limit": limit} for limit in found for used in limit["used"]]
    return sorted(accounts, key=lambda each: -each["share"])[:count]


def _page(visit: Visit, source: Source) -> str:
    found = [_shown(limit) for limit in own_standings(source, visit.actor)]
    return render("limits.html", visit, title="Limits", rows=found, periods=PERIODS)


def _shown(limit: dict[str, Any]) -> dict[str, Any]:
    scope = limit["scope"]
    whom = scope if isinstance(scope, str) else " ".join(f"{kind} {of}" for kind, of in scope.items())
    about = [*limit["models"], *limit["providers"], *limit["clients"]]
    used = [_bar(limit, each) for each in limit["used"]]
    unit = _unit(limit)
    named = {"whom": whom.replace(" True", ""), "about": about, "unit": unit, "amount": limit[unit]}
    return {"per": "", "until": "", **limit, **named, "words": amount_of(limit), "used": used}


def _bar(limit: Mapping[str, Any], used: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an account with the lengths of its bar, in percent of the limit."""
    unit = _unit(limit)
    whole = limit[unit] * (1_000_000 if unit == "usd" else 1)
    spent, held = (_FULL * used[name] / whole if whole else _FULL for name in ("spent", "held"))
    shown = {name: _amount(unit, used[name]) for name in ("spent", "held", "expected")}
    spent_length = min(_FULL, spent)
    return {
        **used,
        "shown": shown,
        "share": round(spent + held),
        "spent_length": round(spent_length, 2),
        "held_length": round(min(_FULL - spent_length, held), 2),
        "is_over": used["expected"] > whole,
    }


def _amount(unit: str, amount: int) -> str:
    return numbers.money(amount) if unit == "usd" else numbers.count(amount)


def _unit(limit: Mapping[str, Any]) -> str:
    return next(unit for unit in UNITS if unit in limit)


def _members(form: Mapping[str, list[str]]) -> dict[str, Any]:
    """Returns a form as the records API takes it. What is empty is left out."""
    sent = {name: values[0].strip() for name, values in form.items() if name != "csrf" and values}
    members: dict[str, Any] = {name: value for name, value in sent.items() if value and name != "shared"}
    for name in members.keys() & {*_LISTS}:
        members[name] = [part.strip() for part in members[name].split(",") if part.strip()]
    for name in members.keys() & {*_WHOLE}:
        members[name] = _number(name, members[name])
    if "scope" in members:
        members["scope"] = scope_of_text(members["scope"], sent.get("shared", "") in ("on", "true", "1"))
    return members


def _number(name: str, text: str) -> Any:
    """Returns the text itself if it is no number: the schema says what is expected."""
    try:
        return _WHOLE[name](text)
    except ValueError:
        return text


def _require_admin(visit: Visit) -> None:
    """Raises Refused."""
    if not visit.actor.admin:
        raise Refused(403, "Limits are for administrators to change.", "Ask one.")
