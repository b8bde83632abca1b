"""What an upgrade leaves to be done beside the traffic: indexes of existing tables, then the sums of what the
version before has written.
"""

from __future__ import annotations

import logging
from math import inf
from time import monotonic

from ..waiting import start_thread
from .database_errors import describe
from .store import RowsRejected, Store

_log = logging.getLogger("aibridge.records")
_SLICE = 50  # interceptions: some milliseconds
_PAUSE_SECONDS = 0.02  # between slices, for who else writes
_CHECK_SECONDS = 60.0  # the version before may still run beside this one


class Upgrade:
    """`next_at` is the monotonic time at which `advance` has something to do."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._has_started = False
        self.next_at = inf

    def start(self) -> None:
        """The database is there. Only the first call has an effect."""
        if not self._has_started:
            self._has_started = True
            start_thread(self._create_indexes)

    def _create_indexes(self) -> None:
        """In a thread of its own, since it may take minutes."""
        try:
            self._store.create_indexes()
            self.next_at = monotonic()
        except Exception as error:  # noqa: BLE001 - logged; queries are slower without
            _log.warning("indexes could not be created: %s", describe(error))

    def advance(self) -> None:
        """Sums a slice, if it is time. Raises DatabaseDown."""
        if monotonic() < self.next_at:
            return
        try:
            is_last = self._store.sum_unsummed(_SLICE) < _SLICE
            self.next_at = monotonic() + (_CHECK_SECONDS if is_last else _PAUSE_SECONDS)
        except RowsRejected as error:
            self.next_at = inf
            _log.error("old records cannot be summed, `aibridge db check` says which: %s", error)
