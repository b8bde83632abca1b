"""Prices interceptions anew that were recorded before, in slices beside the traffic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from time import sleep
from typing import Any

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy import Connection, Engine, RowMapping

from ..model import Asked, Served, Usage
from ..pricing import PriceList
from . import tables
from .contribution import INTERRUPTED
from .contributions import Contributions
from .costs import ESTIMATED, UNPRICED_STATUSES, Costs, Total
from .events import EPOCH, TokenUsage
from .sum_tables import COST_PARTS

Money = Mapping[str, int | None]
Row = Mapping[str, Any] | RowMapping
_SLICE = 200  # interceptions: a transaction of some milliseconds
_PAUSE_SECONDS = 0.01  # between slices, for who else writes
_i, _u = tables.interceptions.c, tables.token_usages.c
_KEY = (_u.interception_id == sa.bindparam("which"), _u.turn == sa.bindparam("row"))
_MONEY = ("cost_micros", *COST_PARTS, "cache_saved_micros")
_SET_USAGE = (
    sa.update(tables.token_usages).where(*_KEY).values({name: sa.bindparam(f"new_{name}") for name in _MONEY})
)
_SET_TOTAL = (
    sa.update(tables.interceptions)
    .where(_i.id == sa.bindparam("which"))
    .values({name: sa.bindparam(f"new_{name}") for name in Total.__struct_fields__})
)


class Selection(Struct, frozen=True):
    """Which interceptions are priced anew: those since a time, of a model (the name may end in `*`) that was
    asked for or served, or without a whole price only."""

    since: datetime = EPOCH
    model: str = ""
    only_unpriced: bool = False

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        conditions = [_i.ended_at.is_not(None), _i.started_at >= self.since]
        if self.model:
            served = sa.exists().where(_u.interception_id == _i.id, _matches(_u.model, self.model))
            conditions.append(sa.or_(_matches(_i.model, self.model), served))
        if self.only_unpriced:
            conditions.append(sa.or_(_i.cost_micros.is_(None), _i.cost_status.in_(UNPRICED_STATUSES)))
        return conditions


class Repriced(Struct, frozen=True):
    """An interception that was looked at, with its cost before and after; None if no price is known."""

    model: str
    before: int | None
    after: int | None
    is_changed: bool


class Repricing:
    """Prices anew. Of a dry run nothing is written."""

    def __init__(self, engine: Engine, prices: PriceList, dry_run: bool = False) -> None:
        self._engine, self._prices, self._dry_run = engine, prices, dry_run
        self._contributions = Contributions(engine.dialect)

    def run(self, selection: Selection) -> Iterator[Repriced]:
        """Yields the interceptions that used tokens. Raises SQLAlchemyError; what was yielded is written."""
        last_id, is_last = "", False
        while not is_last:
            with self._connect() as connection, connection.begin():
                rows = self._rows(connection, selection, last_id)
                repriced = self.reprice(connection, rows)
            yield from repriced
            last_id, is_last = rows[-1]["id"] if rows else "", len(rows) < _SLICE
            sleep(_PAUSE_SECONDS)

    def _connect(self) -> Connection:
        return self._engine.connect().execution_options(writes=not self._dry_run)

    def _rows(self, connection: Connection, selection: Selection, last_id: str) -> Sequence[RowMapping]:
        query = sa.select(tables.interceptions).where(*selection.conditions(), _i.id > last_id)
        query = query.order_by(_i.id).limit(_SLICE)
        return connection.execute(query if self._dry_run else query.with_for_update()).mappings().all()

    def reprice(self, connection: Connection, rows: Sequence[Row]) -> list[Repriced]:
        """Prices interceptions whose rows are locked; returns those that used tokens."""
        repriced, changed = [], []
        usages = _usages_of(connection, [row["id"] for row in rows])
        prices = Costs(self._prices)
        for row in rows:
            own = usages.get(row["id"], [])
            events = [_event(row, usage, own) for usage in own]
            costs = [*map(prices.of_usage, events)]
            is_estimated = row["cost_status"] == ESTIMATED or row["error_type"] == INTERRUPTED
            new = prices.total(events, is_estimated)
            is_changed = _is_changed(row, own, costs, new)
            if is_changed and not self._dry_run:
                _write(connection, row["id"], own, costs, new)
                changed.append(row["id"])
            if own:
                repriced.append(Repriced(row["model"], row["cost_micros"], new.cost_micros, is_changed))
        driver: Any = connection.connection.dbapi_connection
        self._contributions.update(driver.cursor(), changed)
        return repriced


def _usages_of(connection: Connection, ids: Sequence[str]) -> Mapping[str, list[RowMapping]]:
    query = sa.select(tables.token_usages).where(_u.interception_id.in_(ids))
    found = connection.execute(query.order_by(_u.interception_id, _u.turn)).mappings().all()
    return {id: [*group] for id, group in groupby(found, key=lambda usage: usage["interception_id"])}


def _event(row: Row, usage: RowMapping, all_usages: Sequence[RowMapping]) -> TokenUsage:
    """Returns the usage as it was recorded. The first row of a response is that of the model asked for."""
    response_id = usage["provider_response_id"]
    first = next(each for each in all_usages if each["provider_response_id"] == response_id)
    was_asked_for = usage["model"] == first["model"]
    counts = (usage[name] for name in Usage.__struct_fields__)
    return TokenUsage(
        row["id"],
        usage["turn"],
        response_id,
        usage["model"],
        Usage(*counts),
        usage["created_at"],
        Served(usage["service_tier"], usage["speed"], usage["inference_geo"]),
        Asked(row["model"] if was_asked_for else "", row["provider"], row["provider_name"], row["profile"]),
    )


def _is_changed(row: Row, usages: Sequence[RowMapping], costs: Sequence[Money], new: Total) -> bool:
    is_same_total = all(row[name] == getattr(new, name) for name in Total.__struct_fields__)
    return not is_same_total or [{name: usage[name] for name in _MONEY} for usage in usages] != [*costs]


def _write(
    connection: Connection, id: str, usages: Sequence[RowMapping], costs: Sequence[Money], new: Total
) -> None:
    if usages:
        values = [
            {"which": id, "row": usage["turn"], **{f"new_{name}": cost[name] for name in _MONEY}}
            for usage, cost in zip(usages, costs, strict=True)
        ]
        connection.execute(_SET_USAGE, values)
    connection.execute(_SET_TOTAL, {"which": id, **new.parameters})


def _matches(column: sa.ColumnElement[str], model: str) -> sa.ColumnElement[bool]:
    if model.endswith("*"):
        return column.startswith(model[:-1], autoescape=True)
    return column == model
