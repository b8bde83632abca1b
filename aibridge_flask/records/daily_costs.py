"""What the interceptions of a provider have cost, day by day and model by model."""

from __future__ import annotations

from datetime import UTC, date, datetime

import sqlalchemy as sa
from sqlalchemy import Engine

from ..pricing.comparison import OurCost
from . import tables
from .costs import ESTIMATED

_CENTRALIZED = "centralized"
_i, _u = tables.interceptions.c, tables.token_usages.c


def daily_costs(engine: Engine, provider_name: str, start: date, end: date) -> list[OurCost]:
    """Returns the costs from a day to the day before another, in UTC, of central keys: users' own keys are
    on other bills. Raises SQLAlchemyError.
    """
    day = _day(engine)
    model = sa.func.coalesce(sa.func.nullif(_u.model, ""), _i.model)
    query = (
        sa.select(
            day,
            model,
            sa.func.coalesce(sa.func.sum(_u.cost_micros), 0),
            sa.func.sum(sa.case((_u.cost_micros.is_(None), 1), else_=0)),
            sa.func.sum(sa.case((_i.cost_status == ESTIMATED, 1), else_=0)),
        )
        .join(tables.interceptions, _i.id == _u.interception_id)
        .where(_i.provider_name == provider_name, _i.credential_kind == _CENTRALIZED)
        .where(_i.started_at >= _midnight(start), _i.started_at < _midnight(end))
        .group_by(day, model)
    )
    with engine.connect() as connection:
        return [
            OurCost(date.fromisoformat(day), str(model), *map(int, sums))
            for day, model, *sums in connection.execute(query)
        ]


def _day(engine: Engine) -> sa.ColumnElement[str]:
    """Returns the day of an interception as text."""
    if engine.dialect.name == "sqlite":
        return sa.func.strftime("%Y-%m-%d", _i.started_at)
    return sa.func.to_char(sa.func.timezone("UTC", _i.started_at), "YYYY-MM-DD")


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
