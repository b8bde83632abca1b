"""The thread that asks the database for requests: claims that wait at the same moment share a transaction.

It also keeps the limits in effect known, which may change on any host.
"""

from __future__ import annotations

import contextlib
import logging
from _queue import Empty, SimpleQueue  # the C type: gevent patches only the module `queue`
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from time import monotonic

from sqlalchemy import Engine

from ..config.settings import LimitSettings
from ..records import database
from ..records.database_errors import describe
from ..records.deadlines import DEADLINES
from ..waiting import OneShotEvent, one_shot_event, set_events, start_thread
from .accounts import Accounts
from .changes import sync_file
from .claims import Charge, Claim
from .holds import LOCK_SECONDS, Granted, Holds
from .remembered import is_remembered, recall, remember

_log = logging.getLogger("aibridge.limits")
_READ_SECONDS = 2.0  # a change holds everywhere within 5
_LOOK_SECONDS = 0.25  # between looks at the accounts of which something is given away
_SILENCE_SECONDS = 0.25
_RETRY_SECONDS = 0.5
_START_SECONDS = 2.0
_CALL_SECONDS = 5.0
_SYNC_SECONDS = 60.0
_TABLES_SECONDS = 0.05  # between looks whether they are there


class Question:
    """What a request asks, and waits for: an answer to its claim, or the steps of a charge."""

    def __init__(self, claims: tuple[Claim, ...] = (), charges: tuple[Charge, ...] = ()) -> None:
        self.claims, self.charges = claims, charges
        self.answered: OneShotEvent = one_shot_event()
        self.grants: tuple[Granted, ...] = ()
        self.steps: tuple[list[tuple[int, int]], ...] = ()
        self.is_abandoned = False


class Desk:
    """Of one process."""

    def __init__(
        self,
        engine: Engine,
        worker_id: str,
        folder: Path,
        file_limits: Sequence[LimitSettings],
        grow: Callable[[], Sequence[tuple[int, str, int]]],
        on_notices: Callable[[], None],
        accounts: Accounts,
    ) -> None:
        """`folder` is that of the log. `grow` returns what is held beyond expectation: amount, interception,
        account. `on_notices` is called when there are new notices.
        """
        self._engine, self._file_limits = engine, file_limits
        self.accounts = accounts
        self._holds = Holds(engine, worker_id, accounts)
        self._queue: SimpleQueue[Question | None] = SimpleQueue()
        self._folder = folder
        self.limits = recall(folder, file_limits)
        self.is_up, self.has_tried = False, is_remembered(folder)
        self._started_at = monotonic()
        self._grow, self._on_notices, self._is_ready = grow, on_notices, False
        self._next_read = self._next_try = 0.0
        self._next_look = inf
        self._reason = ""
        self._join: Callable[[float], bool] = start_thread(self._run)

    def close(self, seconds: float) -> None:
        self._queue.put(None)
        self._join(seconds)

    def ask(self, question: Question) -> bool:
        """Returns whether the question was answered. Waits for locks, but not for a database that is away."""
        self._queue.put(question)
        question.is_abandoned = not self._wait(question.answered)
        return bool(question.grants or question.steps)

    def _wait(self, answered: OneShotEvent) -> bool:
        """A busy machine or a lock is not a database that is away: it is, if it says nothing when called."""
        deadline = monotonic() + _SILENCE_SECONDS + LOCK_SECONDS
        while not answered.wait(_SILENCE_SECONDS / 2):
            now = monotonic()
            if now > deadline or now - self._holds.called_at > _SILENCE_SECONDS:
                return False
        return True

    def wait_until_tried(self) -> None:
        """Waits a moment, once after the start, for limits that this host has never known."""
        seconds = self._started_at + _START_SECONDS - monotonic()
        if not self.has_tried and seconds > 0:
            question = Question()
            self._queue.put(question)
            question.answered.wait(seconds)

    def refresh(self) -> None:
        """Reads the limits, which were just changed; waits for it a moment."""
        self._next_read = 0.0
        self.ask(Question())

    def _run(self) -> None:
        questions: list[Question] = []
        is_stopping = False
        while not is_stopping:
            asked, is_stopping = self._next()
            questions += asked
            try:
                self._work(questions)
            except Exception as error:  # noqa: BLE001 - the thread survives any error; it is logged
                self._went_down(describe(error))
            if self.has_tried or is_stopping:
                set_events([question.answered for question in questions])
                self._release_abandoned(questions)
                questions = []
        self._holds.close()

    def _next(self) -> tuple[list[Question], bool]:
        """Waits for questions, or until the limits are to be read; returns whether the thread is to end."""
        questions: list[Question] = []
        with contextlib.suppress(Empty):
            next_work = min(self._next_read, self._next_look)
            wanted = self._queue.get(timeout=max(0.001, next_work - monotonic()))
            while True:
                if wanted is None:
                    return questions, True
                questions.append(wanted)
                wanted = self._queue.get_nowait()
        return questions, False

    def _work(self, questions: Sequence[Question]) -> None:
        if monotonic() < self._next_try:
            return
        if monotonic() >= self._next_read:
            self._read()
        if self._is_ready:
            self._answer(questions)
            if monotonic() >= self._next_look:
                self._next_look = monotonic() + _LOOK_SECONDS if self._holds.look() else inf

    def _answer(self, questions: Sequence[Question]) -> None:
        asking = [each for each in questions if each.claims and not each.is_abandoned]
        if asking:
            grants = self._holds.admit([claim for each in asking for claim in each.claims])
            for question in asking:
                count = len(question.claims)
                question.grants, grants = tuple(grants[:count]), grants[count:]
            self._next_look = monotonic() + _LOOK_SECONDS
            self._log_notices()
        for question in questions:
            question.steps = tuple(self._holds.steps(charge) for charge in question.charges)

    def _log_notices(self) -> None:
        told, self._holds.notices = self._holds.notices, []
        if told:
            self._on_notices()
        for notice in told:
            _log.warning(
                "%d %% of limit %r are used by %r", notice.percent, notice.limit.name, notice.subject
            )

    def _read(self) -> None:
        """Reads the limits if they have changed, and writes what interceptions hold beyond expectation."""
        self._next_read = monotonic() + _READ_SECONDS
        if not self._is_ready and not self._prepare():
            self._next_read = monotonic() + _TABLES_SECONDS
            return
        limits = self._holds.read_limits()
        if limits != self.limits or not is_remembered(self._folder):
            self.limits = limits
            remember(self._folder, limits)
        grown = self._grow()
        if grown:
            self._holds.raise_held(grown)
        if self._reason:
            _log.warning("limits are checked again")
        self.is_up = self.has_tried = True
        self._reason = ""

    def _prepare(self) -> bool:
        """Writes the file's limits; returns false while the applier has not made the tables."""
        with DEADLINES.limit(_CALL_SECONDS), self._engine.connect() as connection:
            if not database.check_version(connection):
                return False
        with DEADLINES.limit(_SYNC_SECONDS):
            sync_file(self._engine, self._file_limits)
        self._is_ready = True
        return True

    def _release_abandoned(self, questions: Sequence[Question]) -> None:
        """A request that no longer waits for its answer has gone on without, or was refused."""
        ids = [each.claims[0].id for each in questions if each.is_abandoned and each.grants]
        with contextlib.suppress(Exception):
            if ids:
                self._holds.release(ids)

    def _went_down(self, reason: str) -> None:
        self._holds.close()
        self.is_up, self.has_tried = False, True
        self._next_try = self._next_read = monotonic() + _RETRY_SECONDS
        self._next_look = inf
        if reason != self._reason:
            _log.error("limits cannot be checked: %s", reason)
        self._reason = reason
