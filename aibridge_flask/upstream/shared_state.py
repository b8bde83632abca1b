"""What all workers and hosts should know of a provider: keys that rest, breakers that are open.

Reading is a look into a dict. With `redis_url` a background thread brings what is posted here to
Redis and what others posted there to us, a few times a second; while Redis is away, what this
process knows goes on.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from time import time
from typing import Any

from ..errors import ConfigError
from ..waiting import after_fork

StateKey = tuple[str, ...]
_log = logging.getLogger("aibridge.board")
_HASH = "aibridge:board"
_ROUND = 0.25
_PAUSE = 2.0
_SIZE = 10_000
_PATIENCE = 1.0


@dataclass(frozen=True, slots=True)
class Flag:
    """Times are seconds since 1970: `at` is when it was posted, `until` when it may be forgotten."""

    value: str
    at: float
    until: float


_NOTHING = Flag("", 0.0, 0.0)


class SharedState:
    """One per application and process. Raises ConfigError where Redis's client is not installed."""

    def __init__(self, redis_url: str = "") -> None:
        if redis_url and find_spec("redis") is None:
            raise ConfigError("redis_url: the package `redis` is needed: pip install redis")
        self._url = redis_url
        self._flags: dict[StateKey, Flag] = {}
        self._posted: queue.Queue[StateKey] = queue.Queue()
        self._starting = threading.Lock()
        self._running = self._closed = self._away = False
        after_fork(self, SharedState._begin_anew)

    def get(self, key: StateKey) -> Flag | None:
        """What was posted last under this key, by anybody, and holds still."""
        if self._url and not self._running:
            self.start()
        flag = self._flags.get(key)
        return flag if flag is not None and flag.until > time() else None

    def put(self, key: StateKey, value: str, until: float) -> Flag:
        """Known here at once, and to the others soon."""
        self._forget()
        flag = self._flags[key] = Flag(value, time(), until)
        if self._url:
            self.start()
            self._posted.put(key)
        return flag

    def with_prefix(self, start: StateKey) -> Iterator[Flag]:
        """What holds now under keys that begin so."""
        moment = time()
        for key, flag in list(self._flags.items()):
            if flag.until > moment and key[: len(start)] == start:
                yield flag

    def close(self) -> None:
        """Ends the thread."""
        self._closed = True

    def _forget(self) -> None:
        """Models are named by clients: what is over goes, and so does the oldest of too much."""
        if len(self._flags) >= _SIZE:
            moment = time()
            left = {key: flag for key, flag in self._flags.items() if flag.until > moment}
            self._flags = dict(list(left.items())[-_SIZE // 2 :])

    def _begin_anew(self) -> None:
        self._running, self._posted, self._starting = False, queue.Queue(), threading.Lock()

    def start(self) -> None:
        """Begins to learn from the others, if Redis was named and it has not begun."""
        with self._starting:
            if self._url and not self._running:
                self._running = True
                threading.Thread(target=self._run, name="aibridge-board", daemon=True).start()

    def _run(self) -> None:
        import redis  # an extra: only those who share state need it

        client = redis.Redis.from_url(
            self._url, socket_timeout=_PATIENCE, socket_connect_timeout=_PATIENCE, decode_responses=True
        )
        unsent: set[StateKey] = set()
        posted = self._posted
        while not self._closed:
            unsent |= set(self._wait())
            if self._posted is not posted:
                return  # a greenlet's copy in a forked process, with the other's connection
            try:
                self._exchange(client, unsent)
            except (redis.RedisError, OSError, ValueError) as error:
                self._warn(type(error).__name__)
                unsent |= set(self._flags)  # it may come back empty
                continue
            unsent.clear()
            if self._away:
                self._away = False
                _log.warning("Redis is back: keys and breakers are shared again")
        client.close()

    def _wait(self) -> Iterator[StateKey]:
        """What was posted; waits for the first."""
        try:
            yield self._posted.get(timeout=_PAUSE if self._away else _ROUND)
            while True:
                yield self._posted.get_nowait()
        except queue.Empty:
            return

    def _warn(self, why: str) -> None:
        if not self._away:
            self._away = True
            _log.warning("Redis is away (%s): keys and breakers are this process's own", why)

    def _exchange(self, client: Any, unsent: set[StateKey]) -> None:
        told = {name: _parsed(name, text) for name, text in client.hgetall(_HASH).items()}
        theirs = dict(told.values())
        changes = {}
        for key in unsent:
            own = self._flags.get(key)
            if own is not None and own.at >= theirs.get(key, _NOTHING).at:
                changes[json.dumps(key)] = json.dumps([own.value, own.at, own.until])
        if changes:
            client.hset(_HASH, mapping=changes)
        self._forget()
        for key, flag in theirs.items():
            if flag.until > time() and flag.at > self._flags.get(key, _NOTHING).at:
                self._flags[key] = flag
        over = [name for name, (_, flag) in told.items() if flag.until <= time() and name not in changes]
        if over:
            client.hdel(_HASH, *over)


def _parsed(name: str, text: str) -> tuple[StateKey, Flag]:
    """What somebody wrote; what cannot be read is over."""
    try:
        value, at, until = json.loads(text)
        return tuple(map(str, json.loads(name))), Flag(str(value), float(at), float(until))
    except (ValueError, TypeError):
        return (name,), _NOTHING
