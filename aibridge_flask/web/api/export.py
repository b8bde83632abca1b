"""`GET export`: ended interceptions as JSON lines, without a bound."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

from flask import Response
from marshmallow import fields, validate
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ...model import Actor
from ...reading import search
from ...reading.export import Export, Piece
from ...records import audit
from ..slices import slices_of, stream_response
from .blueprint import RecordsBlueprint
from .documents import Parameters
from .errors import TooSlow
from .questions import query
from .reader import Reader

LINES = "application/x-ndjson"


class ExportQuestion(Parameters):
    q = query()
    after_seq = fields.Integer(
        load_default=0,
        validate=validate.Range(0, (1 << 63) - 1),
        metadata={"description": "`seq` of the last line that you have."},
    )


def add_export(blueprint: RecordsBlueprint, reader: Reader) -> None:
    @blueprint.answers("/export", {"type": "string"}, ExportQuestion, media_types=(LINES,))
    def export(actor: Actor, values: dict[str, Any]) -> Response:
        """Ended interceptions, whole, as JSON lines, in the order of their `seq`."""
        wanted = Export(actor, search.parse(values["q"]))

        def first(engine: Engine) -> Piece:
            piece = wanted.piece(engine, values["after_seq"])
            if actor.admin:
                audit.write(engine, actor.id, "records.export", values["q"])
            return piece

        lines = slices_of(_pieces(reader, wanted, reader.ask(first)))
        return stream_response(reader.stalled, LINES, lambda: next(lines, b""), lines.close)


def _pieces(reader: Reader, wanted: Export, piece: Piece) -> Iterator[bytes]:
    """Yields lines to the end. The connection is aborted where they cannot be read: it is no whole answer."""
    yield piece.lines
    while not piece.is_last:
        seq = piece.seq
        try:
            piece = reader.ask(lambda engine: wanted.piece(engine, seq), is_fresh=False)  # noqa: B023
        except (TooSlow, SQLAlchemyError, TimeoutError):
            raise OSError(errno.ECONNRESET, "the records cannot be read") from None
        yield piece.lines
