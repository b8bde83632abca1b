"""The index of the words of prompts: FTS5 on SQLite, which triggers keep, and a GIN index on PostgreSQL.

Words are sequences of letters and digits, in any case, with their accents. The first MAX_CHARACTERS of a
prompt are indexed. What SQLite's index held of a deleted prompt leaves the file when the index is merged.
"""

from __future__ import annotations

from collections.abc import Mapping
from string import punctuation
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from . import tables

MAX_CHARACTERS = 65_536
NAME = "ix_user_prompts_words"  # of PostgreSQL's index
_TABLE = "prompt_search"
# SQLite's tables: a number for each prompt that is indexed, since a rowid may change, and the index.
DOCUMENTS = sa.table("prompt_documents", sa.column("id"), sa.column("interception_id"))
SEARCH = sa.table(_TABLE, sa.column("rowid"), sa.column("prompt"), sa.column(_TABLE))
# Without punctuation: PostgreSQL would take `app/main.py` for one word, and `<b>` for none.
_QUOTED = punctuation.replace("'", "''")
VECTOR = (
    f"to_tsvector('simple', translate(left(prompt, {MAX_CHARACTERS}), '{_QUOTED}',"
    f" '{' ' * len(punctuation)}'))"
)
CREATE_INDEX = f"CREATE INDEX {NAME} ON user_prompts USING gin ({VECTOR})"
_DONE = "prompts_indexed"  # in `schema_info`: no prompt of an earlier version is left
_SLICE_CHARACTERS, _SLICE_PROMPTS = 50_000, 50  # a transaction of some milliseconds
_MERGE_PAGES = 16

_OF_ID = "FROM prompt_documents WHERE interception_id = {row}.interception_id"
_ADD = (
    "INSERT INTO prompt_documents (interception_id) VALUES (new.interception_id);"  # noqa: S608 - constants
    f" INSERT INTO prompt_search (rowid, prompt) SELECT id, substr(new.prompt, 1, {MAX_CHARACTERS})"
    f" {_OF_ID.format(row='new')};"
)
_REMOVE = (
    "INSERT INTO prompt_search (prompt_search, rowid, prompt)"
    f" SELECT 'delete', id, substr(old.prompt, 1, {MAX_CHARACTERS}) {_OF_ID.format(row='old')};"
    f" DELETE {_OF_ID.format(row='old')};"
)
_DOCUMENTS = (
    "CREATE TABLE IF NOT EXISTS prompt_documents"
    " (id INTEGER PRIMARY KEY, interception_id VARCHAR(36) NOT NULL UNIQUE)"
)
_SEARCH = (
    "CREATE VIRTUAL TABLE IF NOT EXISTS prompt_search USING fts5"
    "(prompt, content='', columnsize=0, tokenize=\"unicode61 remove_diacritics 0\")"
)
_TRIGGERS = {
    f"prompt_added AFTER INSERT ON user_prompts WHEN NOT EXISTS (SELECT 1 {_OF_ID.format(row='new')})": _ADD,
    "prompt_deleted AFTER DELETE ON user_prompts": _REMOVE,
    "prompt_changed AFTER UPDATE OF prompt ON user_prompts WHEN old.prompt <> new.prompt": _REMOVE + _ADD,
}


def create(connection: Connection) -> None:
    """Creates SQLite's tables and triggers. Prompts that are there are indexed later."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(_DOCUMENTS)
        connection.exec_driver_sql(_SEARCH)
        for trigger, statements in _TRIGGERS.items():
            connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {trigger.split()[0]}")  # an earlier version's
            connection.exec_driver_sql(f"CREATE TRIGGER {trigger} BEGIN {statements} END")


def missing_index(connection: Connection) -> dict[str, str]:
    """Returns the statement that creates PostgreSQL's index by its name, if that is not there or invalid."""
    query = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)"
    if connection.dialect.name != "postgresql" or connection.scalar(sa.text(query), {"name": NAME}):
        return {}
    return {NAME: CREATE_INDEX}


def missing_tables(connection: Connection) -> list[str]:
    """Returns the names of SQLite's tables that are not there."""
    if connection.dialect.name != "sqlite":
        return []
    existing = set(sa.inspect(connection).get_table_names())
    return [table.name for table in (DOCUMENTS, SEARCH) if table.name not in existing]


def is_complete(connection: Connection) -> bool:
    """Whether all prompts are indexed."""
    info = tables.schema_info.c
    query = sa.select(info.value).where(info.name == _DONE)
    return connection.dialect.name != "sqlite" or connection.scalar(query) is not None


def set_complete(connection: Connection) -> None:
    values = {"name": _DONE, "value": "1"}
    connection.execute(sa.insert(tables.schema_info).prefix_with("OR IGNORE").values(values))


def find_unindexed(connection: Connection, after: str) -> list[str]:
    """Returns the ids of the next prompts that are not indexed, as many as a slice takes."""
    p = tables.user_prompts.c
    is_indexed = sa.exists().where(DOCUMENTS.c.interception_id == p.interception_id)
    query = sa.select(p.interception_id, sa.func.length(p.prompt)).where(p.interception_id > after)
    ids: list[str] = []
    characters = 0
    for id, length in connection.execute(
        query.where(~is_indexed).order_by(p.interception_id).limit(_SLICE_PROMPTS)
    ):
        characters += min(length, MAX_CHARACTERS)
        if ids and characters > _SLICE_CHARACTERS:
            break
        ids.append(id)
    return ids


def add(connection: Connection, ids: list[str]) -> None:
    """Indexes prompts, if they are still there and not indexed meanwhile."""
    for id in ids:
        if connection.execute(_NUMBER, {"id": id}).rowcount:
            connection.execute(_INDEX, {"id": id})


def add_new(cursor: Any, prompts: Mapping[str, str]) -> None:
    """Indexes prompts that are about to be inserted, by their interceptions' ids, on SQLite's cursor. The
    trigger, which then does nothing, would take twice as long: it writes each prompt to the index alone.
    """
    cursor.execute(_LAST_DOCUMENT)
    (last,) = cursor.fetchone()
    cursor.executemany(_ADD_DOCUMENT, [(id,) for id in prompts])
    cursor.execute(_NEW_DOCUMENTS, (last,))
    cursor.executemany(
        _ADD_WORDS, [(number, prompts[id][:MAX_CHARACTERS]) for number, id in cursor.fetchall()]
    )


def begin_merge(connection: Connection) -> None:
    """Begins to merge the index into one part, which has nothing of deleted prompts."""
    connection.exec_driver_sql(_MERGE, (-_MERGE_PAGES,))


def merge(connection: Connection) -> bool:
    """Merges for some milliseconds; returns whether more is to be merged.

    https://www.sqlite.org/fts5.html#the_merge_command
    """
    before = connection.exec_driver_sql("SELECT total_changes()").scalar_one()
    connection.exec_driver_sql(_MERGE, (_MERGE_PAGES,))
    return bool(connection.exec_driver_sql("SELECT total_changes()").scalar_one() - before > 1)


_LAST_DOCUMENT = "SELECT coalesce(max(id), 0) FROM prompt_documents"
_ADD_DOCUMENT = "INSERT INTO prompt_documents (interception_id) VALUES (?) ON CONFLICT DO NOTHING"
_NEW_DOCUMENTS = "SELECT id, interception_id FROM prompt_documents WHERE id > ?"
_ADD_WORDS = "INSERT INTO prompt_search (rowid, prompt) VALUES (?, ?)"
_MERGE = "INSERT INTO prompt_search (prompt_search, rank) VALUES ('merge', ?)"
_NUMBER = sa.text(
    "INSERT INTO prompt_documents (interception_id) SELECT interception_id FROM user_prompts"
    " WHERE interception_id = :id ON CONFLICT DO NOTHING"
)
_INDEX = sa.text(
    "INSERT INTO prompt_search (rowid, prompt)"  # noqa: S608 - constants
    f" SELECT id, substr(prompt, 1, {MAX_CHARACTERS}) FROM prompt_documents"
    " JOIN user_prompts USING (interception_id) WHERE interception_id = :id"
)
