"""Work that one process of all hosts does at a time. A lease ends by itself if its holder dies."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from ..model import EMPTY, new_id
from . import database_clock
from .sum_tables import leases

_SECONDS = 60  # from the last renewal on


class LeaseLost(Exception):
    """Another process holds the lease: this one was too slow."""


class Lease:
    """One process's hold on the work `name`. `state` belongs to the work, and outlives the holder.

    All methods work in a transaction of the caller's.
    """

    def __init__(self, name: str) -> None:
        self._name, self._holder = name, new_id()
        self._is_mine = (leases.c.name == name, leases.c.holder == self._holder)

    def take(self, connection: Connection) -> bool:
        """Takes the lease; returns false while another process holds it."""
        dialect = connection.dialect.name
        values = {"holder": self._holder, "expires_at": database_clock.in_seconds(dialect, _SECONDS)}
        insert = import_module(f"sqlalchemy.dialects.{dialect}").insert(leases)
        is_free = sa.or_(
            leases.c.expires_at < database_clock.in_seconds(dialect, 0), leases.c.holder == self._holder
        )
        statement = insert.values(name=self._name, state={}, **values).on_conflict_do_update(
            index_elements=["name"], set_=values, where=is_free
        )
        return connection.execute(statement.returning(leases.c.name)).first() is not None

    def renew(self, connection: Connection) -> None:
        """Renews the lease within the transaction that needs it. Raises LeaseLost."""
        self._update(connection, expires_at=database_clock.in_seconds(connection.dialect.name, _SECONDS))

    def release(self, connection: Connection) -> None:
        """Ends the lease. Raises LeaseLost."""
        self._update(connection, expires_at=database_clock.in_seconds(connection.dialect.name, -1))

    def state(self, connection: Connection) -> Mapping[str, Any]:
        """Returns the work's state, whoever holds the lease."""
        state = connection.scalar(sa.select(leases.c.state).where(leases.c.name == self._name))
        return state or EMPTY

    def save(self, connection: Connection, state: Mapping[str, Any]) -> None:
        """Replaces the state. Raises LeaseLost."""
        self._update(connection, state=dict(state))

    def _update(self, connection: Connection, **values: Any) -> None:
        if not connection.execute(sa.update(leases).where(*self._is_mine).values(values)).rowcount:
            raise LeaseLost
