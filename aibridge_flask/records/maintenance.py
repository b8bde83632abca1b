"""Work on the whole database, in a thread of each worker, of which one does it: prompts of earlier versions
are indexed, and what has expired is deleted.
"""

from __future__ import annotations

import logging
from _queue import Empty, SimpleQueue  # the C type: gevent patches only the module `queue`
from collections.abc import Callable
from functools import partial

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from ..config.settings import RecordSettings
from ..waiting import start_thread
from . import text_index
from .database_errors import describe
from .leases import Lease, LeaseLost
from .purge import Purge
from .slices import Slices, Stopped

_log = logging.getLogger("aibridge.records")
_FIRST_SECONDS = 5.0
_INTERVAL = 60.0
_INDEXING = "prompt index"


class Maintenance:
    """One per process that writes records."""

    def __init__(self, engine: Engine, settings: RecordSettings, count: Callable[[int], None]) -> None:
        """`count` hears how many interceptions have lost their content or were deleted."""
        self._engine, self._settings, self._count = engine, settings, count
        self._stop: SimpleQueue[None] = SimpleQueue()
        self._join: Callable[[float], bool] = lambda timeout: True

    def start(self) -> None:
        self._join = start_thread(self._run)

    def close(self, timeout: float) -> None:
        """Ends the thread, and waits up to `timeout` seconds for it."""
        self._stop.put(None)
        self._join(timeout)

    def _run(self) -> None:
        seconds = _FIRST_SECONDS
        while not self._is_stopped_within(seconds):
            seconds = _INTERVAL
            try:
                self._work()
            except Stopped:
                return
            except LeaseLost:
                _log.debug("another process goes on with the maintenance")
            except SQLAlchemyError as error:
                _log.debug("no maintenance: %s", describe(error))
            except Exception:  # noqa: BLE001 - the thread survives any error
                _log.exception("maintenance has failed")

    def _is_stopped_within(self, seconds: float) -> bool:
        try:
            self._stop.get(timeout=seconds)
        except Empty:
            return False
        self._stop.put(None)  # for whoever asks again
        return True

    def _work(self) -> None:
        with Slices(self._engine, self._is_stopped_within) as slices:
            index_prompts(slices)
            deleted = Purge(slices, self._settings).run_if_due()
        if deleted.total:
            self._count(deleted.total)


def index_prompts(slices: Slices) -> None:
    """Indexes the prompts that are not indexed yet, unless another process does. Raises as `Slices.write`."""
    lease = Lease(_INDEXING)
    if slices.read(text_index.is_complete) or not slices.write(lease.take):
        return
    ids = [""]
    while ids := slices.read(partial(text_index.find_unindexed, after=ids[-1])):
        slices.write(partial(_index, lease, ids))
    slices.write(text_index.set_complete)
    slices.write(lease.release)


def _index(lease: Lease, ids: list[str], connection: Connection) -> None:
    lease.renew(connection)
    text_index.add(connection, ids)
