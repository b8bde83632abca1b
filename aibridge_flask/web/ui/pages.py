"""Renders templates. The environment is the dashboard's own: a host's filters and globals are not in it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from . import numbers, texts
from .filters import query

_FOLDER = Path(__file__).parent
STATIC = {
    "dashboard.css": "text/css; charset=utf-8",
    "dashboard.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
NAVIGATION = ("Overview", "Spend", "Sessions", "Live", "Limits", "Providers", "Tokens")


def static_file(name: str) -> bytes:
    """Raises KeyError if there is none."""
    if name not in STATIC:
        raise KeyError(name)
    return (_FOLDER / "static" / name).read_bytes()


_VERSION = sha256(b"".join(map(static_file, STATIC))).hexdigest()[:8]


def render(template: str, *visits: Any, **context: Any) -> str:
    """Returns a page. `visits` holds the visit, or nothing for pages without a visitor."""
    visit = next(iter(visits), None)
    return _ENVIRONMENT.get_template(template).render(visit=visit, **context)


def _value(number: int | None, shown: str) -> Markup:
    if number is None:
        return Markup('<span class="none">{}</span>').format(shown)
    exact = f"{number:,}"
    title = Markup(' title="{}"').format(exact) if exact != shown else ""
    return Markup('<data value="{}"{}>{}</data>').format(number, title, shown)


def _count(number: int | None) -> Markup:
    return _value(number, "–" if number is None else numbers.count(number))


def _money(micros: int | None) -> Markup:
    if micros is None:
        return Markup('<span class="none">unpriced</span>')
    exact = f"US$ {micros / 1e6:,.6f}"
    return Markup('<data value="{}" title="{}">{}</data>').format(micros, exact, numbers.money(micros))


def _time(value: str | datetime | None) -> Markup:
    """Returns a time in words, with the exact one on hover."""
    if not value:
        return Markup('<span class="none">–</span>')
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    words = numbers.ago(moment, datetime.now(UTC))
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        numbers.iso(moment), numbers.utc(moment), words
    )


def _clock(value: str) -> Markup:
    """Returns the time of day, with the whole on hover."""
    moment = datetime.fromisoformat(value)
    exact = numbers.utc(moment)
    return Markup('<time datetime="{}" title="{}">{:%H:%M:%S}</time>').format(
        numbers.iso(moment), exact, moment
    )


def _segment(text: str) -> str:
    """Returns a segment of a path."""
    return quote(text, safe="")


def _environment() -> Environment:
    loader = FileSystemLoader(_FOLDER / "templates")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    filters: Mapping[str, Any] = {
        "count": _count,
        "money": _money,
        "duration": numbers.duration,
        "ago": _time,
        "clock": _clock,
        "name": texts.name,
        "line": texts.line,
        "query": query,
        "segment": _segment,
    }
    environment.filters.update(filters)
    environment.globals.update(
        share=numbers.share, change=numbers.change, navigation=NAVIGATION, version=_VERSION
    )
    return environment


_ENVIRONMENT = _environment()
