"""State that all workers and hosts share: cooling keys and open breakers.

Reading is a dict lookup. With `redis_url` a background thread exchanges entries with Redis a few times a
second. While Redis is away, each process uses what it knows itself.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from time import monotonic, time
from typing import Any

from ..errors import ConfigError
from ..waiting import after_fork

StateKey = tuple[str, ...]
_log = logging.getLogger("aibridge.board")
_REDIS_KEY = "aibridge:board"
_EXCHANGE_SECONDS = 0.25
_OUTAGE_PAUSE = 2.0  # seconds between attempts while Redis is away
_MAX_FLAGS = 10_000
_REDIS_TIMEOUT = 1.0  # seconds
_MAX_SECONDS = 90_000.0  # that another process may ask for
_TICK = 1e-6


@dataclass(frozen=True, slots=True)
class Flag:
    """A value that expires.

    `at`, when it was put, orders the flags of all processes (seconds since 1970, or just after the flag
    before, if a clock was set back). `expires` is this process's monotonic time.
    """

    value: str
    at: float
    expires: float

    @property
    def seconds_left(self) -> float:
        return self.expires - monotonic()


_EXPIRED = Flag("", 0.0, 0.0)


class SharedState:
    """One per application and process. Raises ConfigError if Redis's client is not installed."""

    def __init__(self, redis_url: str = "") -> None:
        if redis_url and find_spec("redis") is None:
            raise ConfigError("redis_url: the package `redis` is needed: pip install redis")
        self._url = redis_url
        self._flags: dict[StateKey, Flag] = {}
        self._changed: queue.Queue[StateKey] = queue.Queue()
        self._start_lock = threading.Lock()
        self._is_running = self._is_closed = self._is_away = False
        after_fork(self, SharedState._reset)

    def start(self) -> None:
        """Starts the exchange with Redis, if it is configured and not running."""
        with self._start_lock:
            if self._url and not self._is_running:
                self._is_running = True
                threading.Thread(target=self._run, name="aibridge-board", daemon=True).start()

    def close(self) -> None:
        """Ends the thread."""
        self._is_closed = True

    def get(self, key: StateKey) -> Flag | None:
        """Returns the newest flag under this key, by any process, or None if it has expired."""
        if self._url and not self._is_running:
            self.start()
        flag = self._flags.get(key)
        return flag if flag is not None and flag.seconds_left > 0 else None

    def put(self, key: StateKey, value: str, seconds: float) -> Flag:
        """Stores a flag for so many seconds. Other processes see it within a second."""
        self._evict()
        at = max(time(), self._flags.get(key, _EXPIRED).at + _TICK)
        flag = self._flags[key] = Flag(value, at, monotonic() + seconds)
        if self._url:
            self.start()
            self._changed.put(key)
        return flag

    def with_prefix(self, prefix: StateKey) -> Iterator[Flag]:
        """Yields the unexpired flags whose keys begin with `prefix`."""
        for key, flag in list(self._flags.items()):
            if flag.seconds_left > 0 and key[: len(prefix)] == prefix:
                yield flag

    def _evict(self) -> None:
        """Drops expired flags, then the oldest: clients name models, so keys would grow without bound."""
        if len(self._flags) >= _MAX_FLAGS:
            current = {key: flag for key, flag in self._flags.items() if flag.seconds_left > 0}
            self._flags = dict(list(current.items())[-_MAX_FLAGS // 2 :])

    def _reset(self) -> None:
        self._is_running, self._changed, self._start_lock = False, queue.Queue(), threading.Lock()

    def _run(self) -> None:
        import redis  # an extra: only those who share state need it

        client = redis.Redis.from_url(
            self._url,
            socket_timeout=_REDIS_TIMEOUT,
            socket_connect_timeout=_REDIS_TIMEOUT,
            decode_responses=True,
        )
        unsent: set[StateKey] = set()
        changed = self._changed
        while not self._is_closed:
            unsent |= set(self._wait_for_changes())
            if self._changed is not changed:
                return  # a greenlet that was copied into a forked process, with the parent's connection
            try:
                self._exchange(client, unsent)
            except (redis.RedisError, OSError, ValueError) as error:
                self._warn(type(error).__name__)
                unsent |= set(self._flags)  # Redis may come back empty
                continue
            unsent.clear()
            if self._is_away:
                self._is_away = False
                _log.warning("Redis is back: keys and breakers are shared again")
        client.close()

    def _wait_for_changes(self) -> Iterator[StateKey]:
        """Yields changed keys; waits for the first one."""
        try:
            yield self._changed.get(timeout=_OUTAGE_PAUSE if self._is_away else _EXCHANGE_SECONDS)
            while True:
                yield self._changed.get_nowait()
        except queue.Empty:
            return

    def _warn(self, reason: str) -> None:
        if not self._is_away:
            self._is_away = True
            _log.warning("Redis is away (%s): keys and breakers are this process's own", reason)

    def _exchange(self, client: Any, unsent: set[StateKey]) -> None:
        """Sends our newer flags, takes over newer ones of others, and deletes expired ones."""
        fields = {name: _parse(name, text) for name, text in client.hgetall(_REDIS_KEY).items()}
        stored = dict(fields.values())
        changes = {}
        for key in unsent:
            own = self._flags.get(key)
            if own is not None and own.at >= stored.get(key, _EXPIRED).at:
                changes[json.dumps(key)] = json.dumps([own.value, own.at, time() + own.seconds_left])
        if changes:
            client.hset(_REDIS_KEY, mapping=changes)
        self._evict()
        for key, flag in stored.items():
            if flag.seconds_left > 0 and flag.at > self._flags.get(key, _EXPIRED).at:
                self._flags[key] = flag
        expired = [
            name for name, (_, flag) in fields.items() if flag.seconds_left <= 0 and name not in changes
        ]
        if expired:
            client.hdel(_REDIS_KEY, *expired)


def _parse(name: str, text: str) -> tuple[StateKey, Flag]:
    """Returns key and flag of a Redis field; an unreadable one counts as expired."""
    try:
        value, at, until = json.loads(text)
        seconds = min(float(until) - time(), _MAX_SECONDS)
        return tuple(map(str, json.loads(name))), Flag(str(value), float(at), monotonic() + seconds)
    except (ValueError, TypeError):
        return (name,), _EXPIRED
