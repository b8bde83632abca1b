"""What was spent of a limit before it was made, or changed: counted from what is recorded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from ..records.contributions import Contributions
from ..records.ledger import GroupSets, parts_of
from ..records.sum_tables import TOKENS, ledger, usage_hourly
from ..records.tables import interceptions
from . import period
from .limit import Asked, Limit

Key = tuple[int, int, str]
"""Account, bucket, subject."""

_SLICE = 1000
_i, _u = interceptions.c, usage_hourly.c
_WHOLE_HOURS = ("day", "week", "month")
_NAMED = ("everyone", "actor", "group")


def rebuild(connection: Connection, limit: Limit, now: int) -> None:
    """Writes the limit's rows of the present period anew, in a transaction that excludes the applier's."""
    start = first_bucket(limit, now)
    connection.execute(sa.delete(ledger).where(ledger.c.limit_name == limit.name, ledger.c.bucket >= start))
    rows = [
        {"account": key[0], "bucket": key[1], "subject": key[2], "limit_name": limit.name, "spent": spent}
        for key, spent in spent_since(connection, limit, now).items()
        if spent
    ]
    if rows:
        connection.execute(sa.insert(ledger), rows)


def first_bucket(limit: Limit, now: int) -> int:
    return period.start(limit.settings.per, now)


def spent_since(connection: Connection, limit: Limit, now: int) -> Mapping[Key, int]:
    """Returns what interceptions have spent in the present period."""
    settings = limit.settings
    is_summed = settings.per in _WHOLE_HOURS and settings.scope.kind in _NAMED
    if settings.unit == "parallel":
        return {}
    if is_summed and settings.unit in ("usd", "tokens"):
        return _from_sums(connection, limit, first_bucket(limit, now))
    return _from_interceptions(connection, limit, first_bucket(limit, now))


def _from_sums(connection: Connection, limit: Limit, start: int) -> Mapping[Key, int]:
    """Whole hours: the sums have them."""
    found: dict[Key, int] = defaultdict(int)
    driver: Any = connection.connection.dbapi_connection
    groups, cursor = GroupSets(connection.dialect), driver.cursor()
    tokens = sum((_u[name] for name in TOKENS[1:]), _u[TOKENS[0]])
    query = sa.select(
        _u.hour, _u.initiator_id, _u.group_set, _u.model, _u.provider_name, _u.client, _u.credential_kind,
        sa.func.sum(tokens), sa.func.sum(_u.cost_micros),
    ).group_by(*list(_u)[1:2], _u.initiator_id, _u.group_set, _u.model, _u.provider_name, _u.client,
               _u.credential_kind).where(_u.hour >= datetime.fromtimestamp(start, UTC))  # fmt: skip
    for hour, actor, group_set, model, provider, client, credential, tokens_sum, micros in connection.execute(
        query
    ).all():
        asked = Asked(
            actor=actor,
            at=int(hour.timestamp()),
            groups=groups.names(cursor, group_set),
            model=model,
            provider=provider,
            client=client,
            credential=credential,
        )
        for subject in limit.subjects(asked):
            key = (limit.account(subject), limit.bucket(asked.at), subject)
            found[key] += limit.amount(0, int(tokens_sum), int(micros))
    return found


def _from_interceptions(connection: Connection, limit: Limit, start: int) -> Mapping[Key, int]:
    found: dict[Key, int] = defaultdict(int)
    driver: Any = connection.connection.dbapi_connection
    groups, cursor = GroupSets(connection.dialect), driver.cursor()
    contributions = Contributions(connection.dialect, locks=False)
    since = max(start, int(limit.created_at.timestamp()) if limit.settings.per == "total" else 0)
    for ids in _ids(connection, datetime.fromtimestamp(since, UTC)):
        for change in contributions.compare(cursor, ids):
            names = groups.names(cursor, change.row.group_set)
            for part in parts_of((limit,), change.row, names, change.row.session_id, change.before):
                (account, bucket), (spent,), (_, subject) = part.key, part.amounts, part.others
                found[account, bucket, subject] += spent
    return found


def _ids(connection: Connection, since: datetime) -> Iterator[list[str]]:
    """Yields the ids of interceptions that are summed, in slices."""
    query = sa.select(_i.id).where(_i.started_at >= since, _i.contributed.is_not(None))
    ids = list(connection.scalars(query.order_by(_i.started_at, _i.id)))
    for first in range(0, len(ids), _SLICE):
        yield ids[first : first + _SLICE]
