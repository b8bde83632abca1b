"""State that all workers and hosts share: cooling keys and open breakers.

Reading is a dict lookup. With `redis_url` a background thread exchanges entries with Redis a few times a
second. While Redis is away, each process uses what it knows itself.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic, time
from typing import Any

from ..waiting import after_fork

StateKey = tuple[str, ...]
_log = logging.getLogger("aibridge.board")
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
    """One per application and process; processes with the same Redis and prefix share it."""

    def __init__(self, redis_url: str = "", redis_prefix: str = "aibridge") -> None:
        self._url, self._redis_key = redis_url, f"{redis_prefix}:board"
        self._flags: dict[StateKey, Flag] = {}
        self._changed = threading.Event()
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
            self._changed.set()
        return flag

    def with_prefix(self, prefix: StateKey) -> Iterator[tuple[StateKey, Flag]]:
        """Yields the unexpired flags whose keys begin with `prefix`, with their keys."""
        for key, flag in list(self._flags.items()):
            if flag.seconds_left > 0 and key[: len(prefix)] == prefix:
                yield key, flag

    def _evict(self) -> None:
        """Drops expired flags, then the oldest: clients name models, so keys would grow without bound."""
        if len(self._flags) >= _MAX_FLAGS:
            current = {key: flag for key, flag in self._flags.items() if flag.seconds_left > 0}
            self._flags = dict(list(current.items())[-_MAX_FLAGS // 2 :])

    def _reset(self) -> None:
        self._is_running, self._changed, self._start_lock = False, threading.Event(), threading.Lock()

    def _run(self) -> None:
        from redis import RedisError  # an extra: only those who share state need it

        client = _connect(self._url)
        changed = self._changed
        while not self._is_closed:
            changed.wait(_OUTAGE_PAUSE if self._is_away else _EXCHANGE_SECONDS)
            changed.clear()
            if self._changed is not changed:
                return  # a greenlet that was copied into a forked process, with the parent's connection
            try:
                self._exchange(client)
            except (RedisError, OSError, ValueError) as error:
                self._warn(type(error).__name__)
                client.connection_pool.disconnect()  # after a failover it is one to the wrong server
                continue
            if self._is_away:
                self._is_away = False
                _log.warning("Redis is back: keys and breakers are shared again")
        client.close()

    def _warn(self, reason: str) -> None:
        if not self._is_away:
            self._is_away = True
            _log.warning("Redis is away (%s): keys and breakers are this process's own", reason)

    def _exchange(self, client: Any) -> None:
        """Sends newer flags, takes over newer ones of others, and deletes expired ones.

        A Redis that was restarted or restored gets back what it lacks.
        """
        fields = {name: _parse(name, text) for name, text in client.hgetall(self._redis_key).items()}
        stored = dict(fields.values())
        changes = {
            json.dumps(key): json.dumps([own.value, own.at, time() + own.seconds_left])
            for key, own in list(self._flags.items())
            if own.seconds_left > 0 and own.at > stored.get(key, _EXPIRED).at
        }
        if changes:
            client.hset(self._redis_key, mapping=changes)
        self._evict()
        for key, flag in stored.items():
            if flag.seconds_left > 0 and flag.at > self._flags.get(key, _EXPIRED).at:
                self._flags[key] = flag
        expired = [
            name for name, (_, flag) in fields.items() if flag.seconds_left <= 0 and name not in changes
        ]
        if expired:
            client.hdel(self._redis_key, *expired)


def _connect(url: str) -> Any:
    """Returns a client without retries of its own: they would hide an outage, and prolong it."""
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return Redis.from_url(
        url,
        socket_timeout=_REDIS_TIMEOUT,
        socket_connect_timeout=_REDIS_TIMEOUT,
        decode_responses=True,
        encoding_errors="replace",
        retry=Retry(NoBackoff(), 0),
    )


def _parse(name: str, text: str) -> tuple[StateKey, Flag]:
    """Returns key and flag of a Redis field; an unreadable one counts as expired."""
    try:
        value, at, until = json.loads(text)
        seconds = min(float(until) - time(), _MAX_SECONDS)
        return tuple(map(str, json.loads(name))), Flag(str(value), float(at), monotonic() + seconds)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return (name,), _EXPIRED
