"""The token usages of one interception while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

from msgspec.structs import replace

from ..model import Asked, Turn, Usage, identifier
from .events import TokenUsage, now


class Usages:
    """One for each response, and for each model that served inside one: rows in this order."""

    def __init__(self, interception_id: str, asked: Asked) -> None:
        self._id, self._asked = interception_id, asked
        self._rows: dict[int, TokenUsage] = {}
        self._first_row = 0

    def next_turn(self, turn: Turn) -> None:
        """The next response's rows follow those of `turn`."""
        self._first_row += len(turn.usages)

    def changed(self, turn: Turn) -> Iterator[TokenUsage]:
        """Yields those that have changed; the response's own is the last, since spans show the last one."""
        response_id, created_at = identifier(turn.response_id), now()
        for position, (model, usage) in reversed([*enumerate(turn.usages)]):
            row = self._first_row + position
            known = self._rows.get(row)
            if usage != (known.usage if known else Usage()) or (known and known.served != turn.served):
                # what served inside was not asked for, and has no price by the name of what was
                asked = self._asked if model == turn.model else replace(self._asked, model="")
                facts = (model, usage, created_at, turn.served, asked)
                self._rows[row] = TokenUsage(self._id, row, response_id, *facts)
                yield self._rows[row]

    def all(self) -> tuple[TokenUsage, ...]:
        return tuple(self._rows[row] for row in sorted(self._rows))

    def total(self) -> Usage:
        """Returns the tokens of all responses so far."""
        usages = [known.usage for known in tuple(self._rows.values())]  # another thread may ask
        return usages[0] if len(usages) == 1 else reduce(Usage.plus, usages, Usage())


def with_estimate(turn: Turn, input: int, output: int) -> Turn:
    """Returns a turn that broke off with what it would have told of its tokens at its end."""
    told = turn.usage
    has_input = told.input_tokens or told.cache_read_input_tokens or told.cache_write_input_tokens
    estimated = replace(
        told,
        input_tokens=told.input_tokens if has_input else input,
        output_tokens=max(told.output_tokens, output),
    )
    return replace(turn, usage=estimated)
