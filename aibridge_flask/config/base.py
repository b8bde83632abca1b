"""What the schemas of the configuration share."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, post_load, validate


class Frozen(Schema):
    """Loads into the frozen class `value_class`."""

    value_class: Any
    error_messages = {"unknown": "there is no such setting"}  # noqa: RUF012 - marshmallow's name

    @post_load
    def _make(self, data: dict[str, Any], **kwargs: Any) -> Any:
        return self.value_class(**data)


def one_of(*choices: str) -> validate.OneOf:
    return validate.OneOf(choices, error="one of {choices} is expected")


def doc(text: str) -> dict[str, str]:
    return {"doc": text}
