"""Gateway tokens: shown once, stored as a digest.

Each has 256 random bits, so a plain SHA-256 cannot be inverted by search.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Engine, RowMapping

from ..headers import TOKEN_PREFIX, mask_secret
from ..model import new_id
from . import audit
from .events import now
from .tables import gateway_tokens

_RANDOM_BYTES = 32


@dataclass(frozen=True, slots=True)
class Token:
    """A stored token. `expires_at`, `revoked_at` and `last_used_at` hold one time or none."""

    id: str
    user: str
    admin: bool
    groups: tuple[str, ...]
    hint: str
    created_at: datetime
    expires_at: tuple[datetime, ...]
    revoked_at: tuple[datetime, ...]
    last_used_at: tuple[datetime, ...]

    @property
    def is_valid(self) -> bool:
        return not self.revoked_at and not any(moment <= now() for moment in self.expires_at)


def digest(token: str) -> str:
    """Returns the digest that is stored for a token."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def create(
    engine: Engine,
    user: str,
    admin: bool,
    days: int,
    groups: Iterable[str] = (),
    by: str = "",
    no_longer_than: Iterable[datetime] = (),
) -> str:
    """Creates a token for `user`, valid for `days` (0: without end). Returns it, which is shown only now.

    `by` is who creates it, for the audit; "": the user. It ends at one of `no_longer_than` at the latest.
    """
    ends = [*([now() + timedelta(days=days)] if days else []), *no_longer_than]
    token = TOKEN_PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    row: dict[str, Any] = {
        "id": new_id(),
        "digest": digest(token),
        "hint": mask_secret(token),
        "user": user,
        "admin": admin,
        "groups": sorted(set(groups)),
        "created_at": now(),
        "expires_at": min(ends, default=None),
    }
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(sa.insert(gateway_tokens).values(row))
        shown = {"user": user, "admin": admin, "groups": row["groups"], "days": days}
        audit.add(connection, by or user, "token.create", row["id"], after=shown)
    return token


def find_by_digest(engine: Engine, token_digest: str) -> Iterator[Token]:
    """Yields the token with this digest, if there is one."""
    return _select(engine, gateway_tokens.c.digest == token_digest)


def list_tokens(engine: Engine) -> Iterator[Token]:
    """Yields all tokens, the oldest first."""
    return _select(engine, sa.true())


def revoke(engine: Engine, id: str, by: str) -> bool:
    """Revokes a token. Returns false if there is none with this id, or it is already revoked.

    `by` is who revokes it, for the audit.
    """
    c = gateway_tokens.c
    statement = sa.update(gateway_tokens).where(c.id == id, c.revoked_at.is_(None))
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        was_valid = bool(connection.execute(statement.values(revoked_at=now())).rowcount)
        if was_valid:
            audit.add(connection, by, "token.revoke", id)
    return was_valid


def _select(engine: Engine, condition: sa.ColumnElement[bool]) -> Iterator[Token]:
    query = sa.select(gateway_tokens).where(condition).order_by(gateway_tokens.c.created_at)
    with engine.connect() as connection:
        return iter([_token(row) for row in connection.execute(query).mappings()])


def _token(row: RowMapping) -> Token:
    return Token(
        id=row["id"],
        user=row["user"],
        admin=row["admin"],
        groups=tuple(row["groups"] or ()),  # null: a version before has made it
        hint=row["hint"],
        created_at=row["created_at"],
        expires_at=_optional(row["expires_at"]),
        revoked_at=_optional(row["revoked_at"]),
        last_used_at=_optional(row["last_used_at"]),
    )


def _optional(moment: datetime | None) -> tuple[datetime, ...]:
    return (moment,) if moment is not None else ()
