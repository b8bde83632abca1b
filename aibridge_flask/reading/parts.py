"""Interceptions with all their parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, RowMapping, Table

from ..records import tables
from ..records.sum_tables import group_sets
from .values import MAX_TEXT_BYTES, initiator, json_value

Result = dict[str, Any]
_PARTS: Mapping[str, Table] = {
    "token_usages": tables.token_usages,
    "user_prompts": tables.user_prompts,
    "tool_usages": tables.tool_usages,
    "model_thoughts": tables.model_thoughts,
}
_PRIVATE = frozenset(
    {
        *("worker_id", "contributed", "profile", "session_key", "usage_id", "seq"),
        "estimated_input",
        *("output_micros", "cache_read_micros", "cache_write_micros", "fees_micros", "cache_saved_micros"),
    }
)
_TEXTS = frozenset({"prompt", "input", "invocation_error", "content", "error_message"})
"""Columns that may hold megabytes."""

_BATCH_BYTES = 1 << 20
_BATCH_ROWS = 100
_SIZE = "size"


def with_parts(connection: Connection, ids: Sequence[str], longest: int = MAX_TEXT_BYTES) -> Iterator[Result]:
    """Yields interceptions with their parts in the order of `ids`, reading them by the megabyte.

    Texts are read up to `longest` characters and one more; 0: whole.
    """
    query = _query(connection, longest)
    for start in range(0, len(ids), _BATCH_ROWS):
        some = ids[start : start + _BATCH_ROWS]
        found = connection.execute(query.where(tables.interceptions.c.id.in_(some))).mappings()
        by_id = {row["id"]: row for row in found}
        for batch in _batches(by_id[id] for id in some if id in by_id):
            yield from _whole(connection, batch, longest)


def _query(connection: Connection, longest: int) -> sa.Select[Any]:
    columns = [column for column in tables.interceptions.c if column.name not in _PRIVATE]
    return sa.select(*_cut(columns, longest), _size(connection).label(_SIZE))


def _batches(rows: Iterable[RowMapping]) -> Iterator[list[RowMapping]]:
    """Yields rows whose parts are read together."""
    batch: list[RowMapping] = []
    size = 0
    for row in rows:
        if batch and size + row[_SIZE] > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += row[_SIZE]
    if batch:
        yield batch


def _whole(connection: Connection, rows: Sequence[RowMapping], longest: int) -> Iterator[Result]:
    results = {row["id"]: _to_result(row) for row in rows}
    groups = _groups(connection, {row["group_set"] for row in rows})
    for row in rows:
        results[row["id"]]["groups"] = groups.get(row["group_set"], [])
    for name, table in _PARTS.items():
        _add(connection, results, name, table, longest)
    yield from results.values()


def _to_result(row: RowMapping) -> Result:
    result = {name: json_value(row[name]) for name in _INTERCEPTION}
    result["session_id"] = row["client_session_id"] or row["thread_root_id"] or row["id"]
    result["initiator"] = initiator(row["initiator_id"], row["metadata"])
    return result


def _add(
    connection: Connection, results: Mapping[str, Result], name: str, table: Table, longest: int
) -> None:
    for result in results.values():
        result[name] = []
    columns = [column for column in table.c if column.name not in _PRIVATE]
    own = (
        sa.select(*_cut(columns, longest))
        .where(table.c.interception_id.in_(results))
        .order_by(*table.primary_key)
    )
    for row in connection.execute(own).mappings():
        part = {key: json_value(value) for key, value in row.items() if key not in _PLACES}
        if name == "model_thoughts":
            part["metadata"] = {"source": part.pop("source")}
        results[row["interception_id"]][name].append(part)


def _cut(columns: Iterable[ColumnElement[Any]], longest: int) -> list[ColumnElement[Any]]:
    """Returns columns of which texts are read up to a length, and one character more to tell that they go
    on; 0: whole."""
    return [
        sa.func.substr(column, 1, longest + 1).label(column.name)
        if longest and column.name in _TEXTS
        else column
        for column in columns
    ]


def _size(connection: Connection) -> ColumnElement[int]:
    """Returns roughly how many bytes the texts of an interception have, without reading them if possible."""
    length = sa.func.octet_length if connection.dialect.name == "postgresql" else sa.func.length
    total: ColumnElement[Any] = sa.literal(0)
    for table in _PARTS.values():
        for column in table.c:
            if column.name in _TEXTS:
                of_it = table.c.interception_id == tables.interceptions.c.id
                query = sa.select(sa.func.coalesce(sa.func.sum(length(column)), 0)).where(of_it)
                total += query.scalar_subquery()
    return sa.cast(total, sa.BigInteger)


def _groups(connection: Connection, sets: Iterable[str]) -> Mapping[str, Sequence[str]]:
    """Returns the names of sets of groups."""
    names: dict[str, list[str]] = {}
    c = group_sets.c
    wanted = [id for id in sets if id]
    if wanted:
        query = sa.select(c.id, c.name).where(c.id.in_(wanted)).order_by(c.id, c.name)
        for id, name in connection.execute(query):
            names.setdefault(id, []).append(name)
    return names


_PLACES = frozenset({"interception_id", "position"})
_INTERCEPTION = tuple(
    column.name for column in tables.interceptions.c if column.name not in {*_PRIVATE, "group_set"}
)
