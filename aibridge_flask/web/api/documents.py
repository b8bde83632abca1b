"""Schemas document the answers, which msgspec encodes. A test compares both."""

from __future__ import annotations

from typing import Any

from marshmallow import EXCLUDE, RAISE, Schema, fields


class Document(Schema):
    """An answer, or a part of one: it has these members and no others."""

    class Meta:
        unknown = RAISE


class Parameters(Schema):
    """The parameters of a question. Unknown ones are ignored."""

    class Meta:
        unknown = EXCLUDE


def _described(meaning: str, **options: Any) -> dict[str, Any]:
    return {"required": True, "metadata": {"description": meaning}, **options}


def text(meaning: str, **options: Any) -> fields.String:
    return fields.String(**_described(meaning, **options))


def number(meaning: str, **options: Any) -> fields.Integer:
    return fields.Integer(**_described(meaning, **options))


def milliseconds(meaning: str, **options: Any) -> fields.Float:
    return fields.Float(**_described(meaning, **options))


def flag(meaning: str, **options: Any) -> fields.Boolean:
    return fields.Boolean(**_described(meaning, **options))


def time(meaning: str, **options: Any) -> fields.DateTime:
    return fields.DateTime(**_described(f"{meaning} UTC, ISO 8601 with `Z`.", **options))


def texts(meaning: str) -> fields.List[Any]:
    return fields.List(fields.String(), **_described(meaning))


def money(meaning: str, **options: Any) -> fields.Integer:
    return number(f"{meaning} In US$ 1e-6.", **options)


def truncated() -> fields.Boolean:
    return flag("A text of it was cut.", required=False)


class InitiatorDocument(Document):
    id = text("The actor.")
    username = text("`username` of its metadata, else its id.")


class TokenCountsDocument(Document):
    input_tokens = number("Without cached ones.")
    output_tokens = number("All that models wrote.")
    cache_read_input_tokens = number("Read from the cache.")
    cache_write_input_tokens = number("Written to the cache.")


def names(meaning: str) -> fields.Dict:
    """An object whose members are texts."""
    return fields.Dict(keys=fields.String(), values=fields.String(), **_described(meaning))


def listing(name: str, document: type[Document], member: str = "results") -> type[Document]:
    """Returns the document of a list, of which a page is an answer."""
    members = {
        "count": number("Of all pages; 10000 if there are more."),
        "count_capped": flag("There are more.", required=False),
        member: fields.List(fields.Nested(document), required=True),
        "next_after_id": text("The next page begins after it; null at the end.", allow_none=True),
    }
    return type(name, (Document,), members)
