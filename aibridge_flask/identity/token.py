"""Mode `token`: gateway tokens, looked up in the record database and cached."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from time import monotonic

from flask import Request
from sqlalchemy.exc import SQLAlchemyError

from ..errors import ConfigError, IdentityUnavailable, Unauthorized
from ..headers import TOKEN_HEADERS, TOKEN_PREFIX, bearer_token
from ..model import Actor
from ..records import tokens
from ..records.deadlines import DEADLINES
from ..records.events import GatewayTokenUsed, now
from ..records.recorder import Recorder
from ..waiting import TOKENS

_FRESH_SECONDS = 15.0  # afterwards one request looks the token up, while others use the cache
_MAX_AGE = 25.0  # seconds; afterwards every request looks it up: a revocation takes effect within 30
_MAX_AGE_IN_OUTAGE = 900.0  # seconds
_LOOKUP_SECONDS = 1.0  # then the database counts as away
_OUTAGE_PAUSE = 2.0  # seconds without lookups while it is away
_QUERY_SECONDS = 5.0
_CACHE_SIZE = 10_000


@dataclass(frozen=True, slots=True)
class _CachedToken:
    """The result of a lookup; `actor` is None for an invalid token."""

    actor: Actor | None
    expires_at: tuple[datetime, ...]
    fetched_at: float

    @property
    def age(self) -> float:
        return monotonic() - self.fetched_at

    def current_actor(self) -> Actor | None:
        return None if any(moment <= now() for moment in self.expires_at) else self.actor


class TokenLoader:
    """Takes the token from the first of the three headers that holds a gateway token."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._cache: OrderedDict[str, _CachedToken] = OrderedDict()
        self._lookups: dict[str, Future[_CachedToken]] = {}
        self._lock = threading.Lock()
        self._away_until = 0.0

    def __call__(self, request: Request) -> Actor | None:
        """Returns the actor, or None if the token is not valid. Raises Unauthorized, IdentityUnavailable."""
        token = token_of(request)
        if not token:
            raise Unauthorized
        return self.find(tokens.digest(token))

    def find(self, key: str) -> Actor | None:
        """Returns the actor of the token with this digest, or None. Raises IdentityUnavailable."""
        cached = self._cache.get(key)
        is_refreshed = key in self._lookups
        if cached and (cached.age < _FRESH_SECONDS or (is_refreshed and cached.age < _MAX_AGE)):
            return cached.current_actor()
        return self._fetch(key, cached)

    def _fetch(self, key: str, cached: _CachedToken | None) -> Actor | None:
        """Looks the token up, or waits for a request that does so for the same token."""
        if monotonic() < self._away_until:
            return self._cached(cached)
        with self._lock:
            lookup = self._lookups.get(key)
            is_first = lookup is None
            lookup = self._lookups.setdefault(key, Future())
        try:
            if is_first:
                self._look_up(key, lookup)
            return lookup.result(_LOOKUP_SECONDS).current_actor()
        except (SQLAlchemyError, TimeoutError):
            return self._cached(cached)
        finally:
            del lookup

    def _look_up(self, key: str, lookup: Future[_CachedToken]) -> None:
        try:
            found = TOKENS.run(partial(self._query, key), _LOOKUP_SECONDS)
        except Exception as error:  # noqa: BLE001 - raised again by whoever waits for the result
            self._away_until = monotonic() + _OUTAGE_PAUSE
            lookup.set_exception(error)
        else:
            lookup.set_result(self._accept(key, found))
        finally:
            self._lookups.pop(key, None)
            del lookup  # its error holds this frame

    def _query(self, key: str) -> list[tokens.Token]:
        with DEADLINES.limit(_QUERY_SECONDS):
            return list(tokens.find_by_digest(self._recorder.engine, key))

    def _accept(self, key: str, found: list[tokens.Token]) -> _CachedToken:
        valid = [token for token in found if token.is_valid]
        cached = _CachedToken(_actor(valid), valid[0].expires_at if valid else (), monotonic())
        self._store(key, cached)
        if valid:
            with contextlib.suppress(OSError, ConfigError):  # without a log it is just not noted
                self._recorder.record(GatewayTokenUsed(valid[0].id, now()))
        return cached

    def _cached(self, cached: _CachedToken | None) -> Actor | None:
        """Returns the cached actor while the database is away. Raises IdentityUnavailable."""
        if cached is None or cached.age > _MAX_AGE_IN_OUTAGE:
            raise IdentityUnavailable
        return cached.current_actor()

    def _store(self, key: str, cached: _CachedToken) -> None:
        self._cache[key] = cached
        self._cache.move_to_end(key)
        while len(self._cache) > _CACHE_SIZE:
            self._cache.popitem(last=False)


def _actor(valid: list[tokens.Token]) -> Actor | None:
    for token in valid:
        return Actor(token.user, admin=token.admin, groups=token.groups, token_id=token.id)
    return None


def token_of(request: Request) -> str:
    """Returns the token, or "". Raises Unauthorized if a header of the gateway holds anything else."""
    for name in TOKEN_HEADERS:
        value = request.headers.get(name, "").strip()
        if value and not value.startswith(TOKEN_PREFIX):
            raise Unauthorized
        if value:
            return value
    bearer = bearer_token(request.headers.get("authorization", "").strip())
    for value in (bearer, request.headers.get("x-api-key", "").strip()):
        if value.startswith(TOKEN_PREFIX):
            return value
    return ""
