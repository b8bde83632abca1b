"""Mode `token`: gateway tokens, looked up in the record database and cached."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import datetime
from time import monotonic

from flask import Request
from sqlalchemy.exc import SQLAlchemyError

from ..errors import IdentityUnavailable, Unauthorized
from ..headers import TOKEN_HEADERS, TOKEN_PREFIX, bearer_token
from ..model import Actor
from ..records import tokens
from ..records.events import GatewayTokenUsed, now
from ..records.recorder import Recorder
from ..waiting import run_in_pool

_FRESH_SECONDS = 15.0  # afterwards one request looks the token up, while others use the cache
_MAX_AGE = 25.0  # seconds; afterwards every request looks it up: a revocation takes effect within 30
_MAX_AGE_IN_OUTAGE = 900.0  # seconds
_CACHE_SIZE = 10_000


@dataclass(frozen=True, slots=True)
class _CachedToken:
    """The result of a lookup; `actor` is None for an invalid token."""

    actor: Actor | None
    expires_at: tuple[datetime, ...]
    fetched_at: float
    is_being_fetched: bool = False

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

    def __call__(self, request: Request) -> Actor | None:
        """Returns the actor, or None if the token is not valid. Raises Unauthorized, IdentityUnavailable."""
        token = _token(request)
        if not token:
            raise Unauthorized
        key = tokens.digest(token)
        cached = self._cache.get(key)
        if cached and (cached.age < _FRESH_SECONDS or (cached.is_being_fetched and cached.age < _MAX_AGE)):
            return cached.current_actor()
        return self._fetch(key, cached)

    def _fetch(self, key: str, cached: _CachedToken | None) -> Actor | None:
        if cached:
            self._cache[key] = replace(cached, is_being_fetched=True)
        try:
            found = run_in_pool(lambda: list(tokens.find_by_digest(self._recorder.engine, key)))
        except SQLAlchemyError:
            return self._cached(key, cached)
        valid = [token for token in found if token.is_valid]
        actor = Actor(valid[0].user, admin=valid[0].admin) if valid else None
        expires_at = valid[0].expires_at if valid else ()
        self._store(key, _CachedToken(actor, expires_at, monotonic()))
        if valid:
            self._recorder.record(GatewayTokenUsed(valid[0].id, now()))
        return actor

    def _cached(self, key: str, cached: _CachedToken | None) -> Actor | None:
        """Returns the cached actor while the database is away."""
        if cached is None or cached.age > _MAX_AGE_IN_OUTAGE:
            raise IdentityUnavailable
        self._cache[key] = replace(cached, is_being_fetched=False)
        return cached.current_actor()

    def _store(self, key: str, cached: _CachedToken) -> None:
        self._cache[key] = cached
        self._cache.move_to_end(key)
        while len(self._cache) > _CACHE_SIZE:
            self._cache.popitem(last=False)


def _token(request: Request) -> str:
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
