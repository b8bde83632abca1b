"""Who has made which stored response or conversation: a memory of the newest, the logs of this host, and the
database.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from time import monotonic

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from ..errors import ConfigError
from ..model import EMPTY
from ..waiting import OBJECTS
from .deadlines import DEADLINES
from .events import StoredObject, now
from .recorder import Recorder
from .rows import clean_text
from .tables import stored_objects

_QUERY_SECONDS = 1.0  # then the database counts as away
_LOOKUP_SECONDS = 2.0
_OUTAGE_PAUSE = 2.0  # seconds without queries while it is away
_MAX_ID_BYTES = 1024  # PostgreSQL indexes values of up to a third of a page
_MAX_MAKERS, _MAX_BYTES = 10_000, 4 << 20
Makers = Mapping[str, str]
"""The actors who have made an object of one id, by the provider's name."""


class StoredObjects:
    """One per application and process."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._memory = _Memory()
        self._lookups: dict[str, Future[Makers]] = {}
        self._lock = threading.Lock()
        self._away_until = 0.0

    def made(self, provider_name: str, id: str, actor_id: str) -> tuple[StoredObject, ...]:
        """Returns the event of an object that an actor has made; none for an id that no API has."""
        if not _is_possible(id):
            return ()
        maker = clean_text(actor_id)
        self._memory.put((provider_name, id), maker)
        return (StoredObject(provider_name, id, maker, now()),)

    def record(self, provider_name: str, id: str, actor_id: str) -> None:
        """Records an object that an actor has made. Without a log it is just not noted."""
        for event in self.made(provider_name, id, actor_id):
            with contextlib.suppress(OSError, ConfigError):
                self._recorder.record(event)

    def was_made_by(self, provider_name: str, id: str, actor_id: str) -> tuple[bool, ...]:
        """Returns whether an actor has made an object; nothing if nobody is known to have made it.

        Of an id that is unknown at this provider, the makers at others are asked for: two instances may share
        an account. Waits for the database, but not for one that is away.
        """
        maker = self._memory.get((provider_name, id))
        if not maker and _is_possible(id):
            makers = self._find(id)
            maker = makers.get(provider_name, "")
            if maker:
                self._memory.put((provider_name, id), maker)
            elif makers:
                return (clean_text(actor_id) in makers.values(),)
        return (maker == clean_text(actor_id),) if maker else ()

    def _find(self, id: str) -> Makers:
        """Looks an id up, or waits for a request that does so for the same id."""
        with self._lock:
            is_first = id not in self._lookups
            lookup = self._lookups.setdefault(id, Future())
        if is_first:
            self._look_up(id, lookup)
        try:
            return lookup.result(_LOOKUP_SECONDS)
        except (TimeoutError, OSError, ConfigError):
            return EMPTY
        finally:
            del lookup

    def _look_up(self, id: str, lookup: Future[Makers]) -> None:
        try:
            self._recorder.start()
            lookup.set_result(OBJECTS.run(partial(self._search, id), _LOOKUP_SECONDS))
        except Exception as error:  # noqa: BLE001 - raised again by whoever waits for the result
            self._away_until = monotonic() + _OUTAGE_PAUSE
            lookup.set_exception(error)
        finally:
            self._lookups.pop(id, None)
            del lookup  # its error holds this frame

    def _search(self, id: str) -> Makers:
        """Searches the logs first: what leaves them meanwhile is in the database."""
        unapplied: dict[str, str] = {}
        for event in self._recorder.unapplied_events(id.encode()):
            if isinstance(event, StoredObject) and event.id == id:
                unapplied.setdefault(event.provider_name, event.initiator_id)
        return {**unapplied, **self._query(id)}

    def _query(self, id: str) -> Makers:
        if monotonic() < self._away_until:
            return EMPTY
        c = stored_objects.c
        query = sa.select(c.provider_name, c.initiator_id).where(c.id == id)
        try:
            with DEADLINES.limit(_QUERY_SECONDS), self._recorder.engine.connect() as connection:
                return {str(name): str(maker) for name, maker in connection.execute(query)}
        except (SQLAlchemyError, OSError):
            self._away_until = monotonic() + _OUTAGE_PAUSE
            return EMPTY


def _is_possible(id: str) -> bool:
    """Whether an API may have given an id: it is printable and short."""
    return id.isprintable() and 0 < len(id.encode()) <= _MAX_ID_BYTES


class _Memory:
    """The makers of the newest ids, bounded in number and bytes. Of two makers the first one counts."""

    def __init__(self) -> None:
        self._makers: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, key: tuple[str, str]) -> str:
        return self._makers.get(key, "")

    def put(self, key: tuple[str, str], maker: str) -> None:
        with self._lock:
            if key not in self._makers:
                self._makers[key] = maker
                self._size += _size(key, maker)
            while len(self._makers) > _MAX_MAKERS or self._size > _MAX_BYTES:
                self._size -= _size(*self._makers.popitem(last=False))


def _size(key: tuple[str, str], maker: str) -> int:
    return len(key[0]) + len(key[1]) + len(maker)
