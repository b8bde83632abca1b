"""Parameters that several questions have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import fields, validate

from ...reading import search
from ...reading.pages import MAX_OFFSET, Page
from .documents import Parameters

_Q = 'The search: `key:value key:"quoted value"`. Keys: ' + ", ".join(f"`{key}`" for key in search.KEYS) + "."


def limit(default: int = 100, most: int = 1000) -> fields.Integer:
    described = {"description": "Rows of a page."}
    return fields.Integer(load_default=default, validate=validate.Range(1, most), metadata=described)


def offset() -> fields.Integer:
    described = {"description": "Rows to skip."}
    return fields.Integer(load_default=0, validate=validate.Range(0, MAX_OFFSET), metadata=described)


def query() -> fields.String:
    return fields.String(load_default="", metadata={"description": _Q})


def id_of(meaning: str) -> fields.String:
    return fields.String(load_default="", metadata={"description": meaning})


class NoQuestion(Parameters):
    pass


class ListQuestion(Parameters):
    q = query()
    limit = limit()
    offset = offset()


class AfterQuestion(Parameters):
    limit = limit()
    offset = offset()
    after_id = id_of("The last row of the page before: `next_after_id`.")


class PageQuestion(AfterQuestion):
    q = query()


def page_of(values: Mapping[str, Any], after: str = "after_id") -> Page:
    return Page(values["limit"], values["offset"], values.get(after, ""))
