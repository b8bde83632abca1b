"""What is wrong with a question."""

from __future__ import annotations


class BadQuestion(ValueError):
    """A parameter cannot be used. `field` names it, `detail` says why."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(detail)
        self.field, self.detail = field, detail


class NotFound(LookupError):
    """There is nothing with this id, or the actor may not see it. The message says what is missing."""
