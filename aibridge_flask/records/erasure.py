"""Erases a person from the database: content and name. What is summed stays, under the name ERASED."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy import Connection, Table

from ..limits.definitions import exclude_applier, limits_of, remove
from . import tombstones
from .content import delete_content, remove_traces
from .contributions import Contributions
from .erased_sums import ErasedSums
from .rows import stored_name
from .slices import Slices
from .sum_tables import audit, holds, ledger, limit_notices
from .tables import gateway_tokens, interceptions, stored_objects
from .tombstones import ERASED, NAMELESS

_i = interceptions.c


class Erased(Struct, frozen=True):
    """How much was erased. Not `is_traceless`: SQLite's log has traces, since somebody reads for long."""

    interceptions: int
    tokens: int
    stored_objects: int
    is_traceless: bool = True


class Erasure:
    """Of one person, in slices beside the traffic. It may be repeated."""

    def __init__(self, slices: Slices, actor_id: str) -> None:
        """Raises ValueError for ERASED itself."""
        self._slices, self._actor_id = slices, stored_name(actor_id)
        if self._actor_id == ERASED:
            raise ValueError(ERASED)
        dialect = slices.engine.dialect
        self._contributions = Contributions(dialect)

    def find_interceptions(self) -> list[str]:
        """Returns the ids of the person's interceptions. Raises SQLAlchemyError, Stopped."""
        query = sa.select(_i.id).where(_i.initiator_id == self._actor_id)
        return self._slices.read(lambda connection: list(connection.scalars(query)))

    def run(self) -> Erased:
        """Erases all that is in the database. Raises SQLAlchemyError, Stopped; then it is to be repeated."""
        write = self._slices.write
        write(partial(tombstones.add, actor_id=self._actor_id))
        count = 0
        while erased := write(self._erase_interceptions):
            count += erased
        sums = ErasedSums(self._slices.engine.dialect, self._actor_id)
        for rename in (sums.rename_sessions, sums.rename_usage, sums.rename_days):
            while write(partial(rename, count=self._slices.size)):
                pass
        tokens, objects = (
            write(partial(self._delete, table, column))
            for table, column in ((gateway_tokens, "user"), (stored_objects, "initiator_id"))
        )
        write(self._erase_audit)
        write(self._erase_limits)
        return Erased(count, tokens, objects, remove_traces(self._slices))

    def _erase_interceptions(self, connection: Connection) -> int:
        """Erases some; returns how many. Their sums move with them."""
        query = sa.select(_i.id).where(_i.initiator_id == self._actor_id).order_by(_i.id)
        ids = list(connection.scalars(query.limit(self._slices.size).with_for_update()))
        if ids:
            delete_content(connection, ids)
            connection.execute(sa.update(interceptions).where(_i.id.in_(ids)).values(dict(NAMELESS)))
            driver: Any = connection.connection.dbapi_connection
            self._contributions.update(driver.cursor(), ids)
        return len(ids)

    def _delete(self, table: Table, column: str, connection: Connection) -> int:
        return connection.execute(sa.delete(table).where(table.c[column] == self._actor_id)).rowcount

    def _erase_limits(self, connection: Connection) -> None:
        """What others share stays counted; what is the person's alone goes, with a limit that names it."""
        for table in (ledger, holds, limit_notices):
            connection.execute(sa.delete(table).where(table.c.subject == self._actor_id))
        names = [limit.name for limit in limits_of(connection) if limit.is_of_actor(self._actor_id)]
        for name in names:
            remove(connection, name)
        if names:
            exclude_applier(connection)

    def _erase_audit(self, connection: Connection) -> None:
        """What was done stays, without the name. Changes that name the person go."""
        for name in ("actor_id", "target"):
            is_named = audit.c[name] == self._actor_id
            connection.execute(sa.update(audit).where(is_named).values({name: ERASED}))
        for name in ("before", "after"):
            text = sa.cast(audit.c[name], sa.Text)
            is_named = sa.func.replace(text, json.dumps(self._actor_id), "") != text  # as LIKE, by case
            connection.execute(sa.update(audit).where(is_named).values({name: {}}))
