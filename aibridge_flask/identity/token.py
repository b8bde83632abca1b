"""Mode `token`: gateway tokens, looked up in the record database and remembered for a while."""

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

_FRESH = 15.0  # seconds after which one request looks again, while others go on
_KNOWN = 25.0  # seconds after which every request looks again: a revocation holds within 30
_AWAY = 900.0  # seconds that a token is believed while the database is away
_SIZE = 10_000


@dataclass(frozen=True, slots=True)
class _CachedToken:
    """What the last look found: no actor (None) for a token that is not valid."""

    actor: Actor | None
    expires_at: tuple[datetime, ...]
    looked_at: float
    being_looked_up: bool = False

    @property
    def age(self) -> float:
        return monotonic() - self.looked_at

    def current(self) -> Actor | None:
        return None if any(moment <= now() for moment in self.expires_at) else self.actor


class TokenLoader:
    """The first of the three headers whose value is a gateway token tells the actor."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._known: OrderedDict[str, _CachedToken] = OrderedDict()

    def __call__(self, request: Request) -> Actor | None:
        """Raises Unauthorized, IdentityUnavailable."""
        token = _token(request)
        if not token:
            raise Unauthorized
        key = tokens.digest(token)
        known = self._known.get(key)
        if known and (known.age < _FRESH or (known.being_looked_up and known.age < _KNOWN)):
            return known.current()
        return self._look(key, known)

    def _look(self, key: str, known: _CachedToken | None) -> Actor | None:
        if known:
            self._known[key] = replace(known, being_looked_up=True)
        try:
            found = run_in_pool(lambda: list(tokens.find_by_digest(self._recorder.engine, key)))
        except SQLAlchemyError:
            return self._believe(key, known)
        valid = [token for token in found if token.valid]
        actor = Actor(valid[0].user, admin=valid[0].admin) if valid else None
        expires_at = valid[0].expires_at if valid else ()
        self._remember(key, _CachedToken(actor, expires_at, monotonic()))
        if valid:
            self._recorder.record(GatewayTokenUsed(valid[0].id, now()))
        return actor

    def _believe(self, key: str, known: _CachedToken | None) -> Actor | None:
        """The database is away: what was known of the token holds on for a quarter of an hour."""
        if known is None or known.age > _AWAY:
            raise IdentityUnavailable
        self._known[key] = replace(known, being_looked_up=False)
        return known.current()

    def _remember(self, key: str, known: _CachedToken) -> None:
        self._known[key] = known
        self._known.move_to_end(key)
        while len(self._known) > _SIZE:
            self._known.popitem(last=False)


def _token(request: Request) -> str:
    """Raises Unauthorized where a header that is the gateway's alone holds anything else."""
    for name in TOKEN_HEADERS:
        value = request.headers.get(name, "").strip()
        if value and not value.startswith(TOKEN_PREFIX):
            raise Unauthorized
        if value:
            return value
    own = bearer_token(request.headers.get("authorization", "").strip())
    for value in (own, request.headers.get("x-api-key", "").strip()):
        if value.startswith(TOKEN_PREFIX):
            return value
    return ""
