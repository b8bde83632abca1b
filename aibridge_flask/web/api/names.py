"""`GET models`, `GET clients`, `GET groups`: the names that filters offer."""

from __future__ import annotations

from typing import Any

from flask import Response

from ...model import Actor
from ...reading import search
from ...reading.names import names
from ...reading.values import encode
from .blueprint import RecordsBlueprint
from .questions import ListQuestion, page_of
from .reader import Reader, json_response

_TEXTS = {"type": "array", "items": {"type": "string"}}
_KINDS = {"models": "model", "clients": "client", "groups": "group"}


def add_names(blueprint: RecordsBlueprint, reader: Reader) -> None:
    for path in _KINDS:
        _add(blueprint, reader, path)


def _add(blueprint: RecordsBlueprint, reader: Reader, path: str) -> None:
    def view(actor: Actor, values: dict[str, Any]) -> Response:
        found, page = search.parse(values["q"]), page_of(values)
        return json_response(
            reader.ask(lambda engine: encode(names(engine, actor, _KINDS[path], found, page)))
        )

    view.__name__ = path
    view.__doc__ = f"The names of {path} in the interceptions that match, in alphabetical order."
    blueprint.answers(f"/{path}", _TEXTS, ListQuestion)(view)
