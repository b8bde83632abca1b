"""Asks questions of the records in a thread of the readers' pool."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TypeVar

from flask import Response
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ...reading.connection import QUERY_SECONDS
from ...reading.pages import Listing
from ...records.deadlines import DEADLINES
from ...records.recorder import Recorder
from ...waiting import READERS, StalledClients
from .errors import TooSlow

T = TypeVar("T")
_WAIT_SECONDS = 7.0  # for a thread, and for the first connection


class Reader:
    """Waits until what this host has recorded is in the database, then asks."""

    def __init__(self, recorder: Recorder, stalled: StalledClients) -> None:
        self.recorder, self.stalled = recorder, stalled

    def ask(
        self, question: Callable[[Engine], T], is_fresh: bool = True, seconds: float = QUERY_SECONDS
    ) -> T:
        """Returns the question's answer. `is_fresh`: first waits for what was just recorded.

        The question may take so many `seconds`, with the encoding of what it reads. Raises TooSlow,
        SQLAlchemyError, OSError, and what it raises.
        """
        self.recorder.start()

        def run() -> T:
            if is_fresh:
                self.recorder.wait_until_applied()
            else:
                self.recorder.wait_for_connection()
            return ask_within(self.recorder.engine, question, seconds)

        return READERS.run(run, _WAIT_SECONDS + seconds)

    def list(self, question: Callable[[Engine], Listing], name: str = "results") -> Response:
        """Returns the response with a page of a list."""
        return json_response(self.ask(lambda engine: question(engine).to_json(name)))


def ask_within(engine: Engine, question: Callable[[Engine], T], seconds: float) -> T:
    """Asks in this thread. Raises TooSlow, SQLAlchemyError, and what the question raises."""
    begin = monotonic()
    try:
        with DEADLINES.limit(seconds):
            return question(engine)
    except SQLAlchemyError as error:
        if monotonic() - begin >= min(seconds, QUERY_SECONDS):
            raise TooSlow from None
        raise error from None


def json_response(data: bytes, status: int = 200) -> Response:
    return Response(data, status, mimetype="application/json")
