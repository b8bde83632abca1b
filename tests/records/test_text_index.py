"""The text index: prompts of a version before are indexed later, and deleted words leave the file."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from aibridge_flask import config
from aibridge_flask.pricing import PriceList
from aibridge_flask.records import database as databases
from aibridge_flask.records import tables, text_index
from aibridge_flask.records.content import delete_content, remove_traces
from aibridge_flask.records.events import Event, Prompt, now
from aibridge_flask.records.maintenance import index_prompts
from aibridge_flask.records.slices import Slices, Stopped
from aibridge_flask.records.store import Store
from tests.support.records import started
from tests.support.schema import set_info


def write(url: str, prompts: dict[str, str]) -> None:
    store = Store(databases.connect(url), PriceList(config.load({})))
    store.open()
    events: list[Event] = []
    for id, prompt in prompts.items():
        events += [started(id), Prompt(id, prompt, now())]
    position = store.position("log")
    store.apply("log", events, position, position + 1)
    store.close()


def go_back_to_the_version_before(url: str) -> None:
    """Leaves what version 7 has left: prompts, and no index."""
    with databases.connect(url).connect().execution_options(writes=True) as connection, connection.begin():
        for trigger in ("prompt_added", "prompt_deleted", "prompt_changed"):
            connection.exec_driver_sql(f"DROP TRIGGER {trigger}")
        connection.exec_driver_sql("DROP TABLE prompt_search")
        connection.exec_driver_sql("DROP TABLE prompt_documents")
    set_info(databases.connect(url), version="7")


def found(url: str, word: str) -> list[str]:
    query = sa.text(
        "SELECT interception_id FROM prompt_documents WHERE id IN"
        " (SELECT rowid FROM prompt_search WHERE prompt_search MATCH :word) ORDER BY interception_id"
    )
    with databases.connect(url).connect() as connection:
        return list(connection.scalars(query, {"word": word}))


def test_prompts_of_the_version_before_are_indexed_in_slices(database_url: str) -> None:
    prompts = {f"old {number:03}": f"ancient word{number}" for number in range(130)}
    write(database_url, {**prompts, "old large": "ancient " + "y" * 400_000})
    go_back_to_the_version_before(database_url)
    databases.migrate(databases.connect(database_url))
    write(database_url, {"new": "modern"})
    with (
        databases.connect(database_url).connect().execution_options(writes=True) as connection,
        connection.begin(),
    ):
        connection.execute(sa.delete(tables.interceptions).where(tables.interceptions.c.id == "old 007"))
    assert (found(database_url, "ancient"), found(database_url, "modern")) == ([], ["new"])

    pauses = 0

    def is_stopped_within(seconds: float) -> bool:
        nonlocal pauses
        pauses += 1
        return pauses == 6

    engine = databases.connect(database_url)
    with pytest.raises(Stopped), Slices(engine, is_stopped_within) as slices:
        index_prompts(slices)
    assert 0 < len(found(database_url, "ancient")) < 130
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.exec_driver_sql(
            "UPDATE leases SET expires_at = '2020-01-01 00:00:00'"
        )  # its holder has died
    for _ in range(2):
        with Slices(engine, lambda seconds: False) as slices:
            index_prompts(slices)
    assert len(found(database_url, "ancient")) == 130
    assert found(database_url, "word8") == ["old 008"]
    assert found(database_url, "word7") == []
    with engine.connect() as connection:
        assert text_index.is_complete(connection)


def test_code_of_the_version_before_goes_on_beside_the_index(database_url: str) -> None:
    """It knows nothing of the index: triggers keep it."""
    write(database_url, {"a": "first", "b": "gone"})
    with (
        databases.connect(database_url).connect().execution_options(writes=True) as connection,
        connection.begin(),
    ):
        connection.exec_driver_sql(
            "INSERT INTO user_prompts (interception_id, prompt, created_at) VALUES ('a', 'second', '2026-01-01')"
            " ON CONFLICT (interception_id) DO UPDATE SET prompt = excluded.prompt"
        )
        connection.exec_driver_sql("DELETE FROM user_prompts WHERE interception_id = 'b'")
        connection.exec_driver_sql(
            "INSERT INTO user_prompts (interception_id, prompt, created_at) VALUES ('b', 'third', '2026-01-01')"
        )
    assert (found(database_url, "first"), found(database_url, "second")) == ([], ["a"])
    write(database_url, {"b": "third", "c": "fourth"})
    assert (found(database_url, "third"), found(database_url, "fourth")) == (["b"], ["c"])


def test_a_prompt_that_comes_again_is_indexed_once(database_url: str) -> None:
    """Else a deletion would leave a part of it in the index. Also on a database of the version before, whose
    trigger indexes each prompt by itself.
    """
    engine = databases.connect(database_url)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.exec_driver_sql("DROP TRIGGER prompt_added")
        connection.exec_driver_sql(
            "CREATE TRIGGER prompt_added AFTER INSERT ON user_prompts BEGIN INSERT INTO prompt_documents"
            " (interception_id) VALUES (new.interception_id); INSERT INTO prompt_search (rowid, prompt) SELECT id,"
            " new.prompt FROM prompt_documents WHERE interception_id = new.interception_id; END"
        )
    set_info(engine, version="10")
    databases.migrate(engine)
    for _ in range(3):
        write(database_url, {"a": "once", "b": "twice"})
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.exec_driver_sql("DELETE FROM user_prompts WHERE interception_id = 'a'")
        assert connection.exec_driver_sql("SELECT count(*) FROM prompt_search('once')").scalar_one() == 0
    assert found(database_url, "twice") == ["b"]


def test_deleted_words_leave_the_file_and_its_log(database_url: str, tmp_path: Path) -> None:
    secret = "Zyzzyva-Quixotic"
    write(database_url, {f"{number}": f"plain text {number}" for number in range(300)})
    write(database_url, {f"s{number}": f"{secret} number {number} " * 50 for number in range(40)})
    write(database_url, {f"t{number}": f"more text {number}" for number in range(300)})
    files = [tmp_path / "records.db", tmp_path / "records.db-wal"]
    pieces = [b"Zyzzyva", b"zyzzyva", b"quixotic"]

    def hits() -> list[bool]:
        data = b"".join(file.read_bytes() for file in files if file.exists())
        return [piece in data for piece in pieces]

    with Slices(databases.connect(database_url), lambda seconds: False) as slices:
        remove_traces(slices)
        assert hits() == [True, True, True]
        slices.write(lambda connection: delete_content(connection, [f"s{number}" for number in range(40)]))
        assert remove_traces(slices)
    assert hits() == [False, False, False]
    assert found(database_url, "number") == []
    assert len(found(database_url, "text")) == 600
