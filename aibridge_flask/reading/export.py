"""Ended interceptions as JSON lines, in the order in which their ends reached the database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import sqlalchemy as sa

from ..model import Actor
from ..records.tables import interceptions
from .connection import Source, connected
from .parts import with_parts
from .search import Search
from .values import encode

_c = interceptions.c
_WINDOW = 5000  # numbers that one question looks through, so that a rare match takes no longer than others
_LINES = 100


class Piece(NamedTuple):
    """Some lines, and the number from which to go on."""

    lines: bytes
    seq: int
    is_last: bool


@dataclass(frozen=True, slots=True)
class Export:
    """What is to be exported."""

    actor: Actor
    search: Search = Search()

    def piece(self, source: Source, after_seq: int) -> Piece:
        """Returns the first lines after a number; there may be none although more follow."""
        with connected(source) as connection:
            newest = connection.scalar(sa.select(sa.func.max(_c.seq))) or 0
            # numbers may have gaps
            first = connection.scalar(sa.select(sa.func.min(_c.seq)).where(_c.seq > after_seq)) or newest
            end = min(first + _WINDOW, newest)
            conditions = self.search.conditions(self.actor, source.dialect.name)
            query = sa.select(_c.id, _c.seq).where(_c.seq > after_seq, _c.seq <= end, *conditions)
            rows = connection.execute(query.order_by(_c.seq).limit(_LINES)).all()
            seq_of = dict(tuple(row) for row in rows)
            lines = [
                encode({"seq": seq_of[whole["id"]], **whole}) + b"\n"
                for whole in with_parts(connection, list(seq_of), longest=0)
            ]
        reached = rows[-1].seq if len(rows) == _LINES else end
        return Piece(b"".join(lines), reached, reached >= newest)
