"""Prompts are found by their words, whatever is asked for."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from aibridge_flask import config
from aibridge_flask.pricing import PriceList
from aibridge_flask.reading.text_search import with_text
from aibridge_flask.records import database as databases
from aibridge_flask.records import tables, text_index
from aibridge_flask.records.events import Event, Prompt, now
from aibridge_flask.records.store import Store
from tests.conftest import BOTH_DATABASES
from tests.support.records import started

pytestmark = BOTH_DATABASES
PROMPTS = {
    "path": "Why does src/app.py import os? It shouldn't.",
    "markup": "Remove the <blink>tag</blink>, please: a&b 'quoted' \"double\"",
    "accents": "Das Café öffnet um 8 Uhr",
    "chinese": "你好世界 hello",
    "emoji": "ship it \U0001f680 now",
    "nul": "before\0after",
    "empty": "",
    "operators": "NOT this OR that AND those NEAR (them) col:on",
    "long": "x" * 3000 + " beside",
    "far": "word " * 14_000 + "beyond",
}


@pytest.fixture
def engine(database_url: str) -> sa.Engine:
    """A database with the prompts."""
    store = Store(databases.connect(database_url), PriceList(config.load({})))
    store.open()
    events: list[Event] = []
    for id, prompt in PROMPTS.items():
        events += [started(id), Prompt(id, prompt, now())]
    store.apply("log", events, store.position("log"), 1)
    store.close()
    return databases.connect(database_url)


def found(engine: sa.Engine, text: str) -> set[str]:
    with engine.connect() as connection:
        query = with_text(engine.dialect.name, text)
        return set(connection.scalars(query))


CASES = [
    ("import", {"path"}),
    ("IMPORT why", {"path"}),
    ("why os app.py", {"path"}),
    ("app.p", {"path"}),
    ("py.app", set()),
    ("imp why", set()),
    ("why imp", {"path"}),
    ("shouldn't", {"path"}),
    ("blink", {"markup"}),
    ("<blink>", {"markup"}),
    ("a&b", {"markup"}),
    ("'quoted'", {"markup"}),
    ('"double"', {"markup"}),
    ('doubl" OR "x', set()),
    ("café", {"accents"}),
    ("cafe", set()),
    ("8", {"accents"}),
    ("你好", {"chinese"}),
    ("世界", set()),
    ("ship \U0001f680 now", {"emoji"}),
    ("NOT", {"operators"}),
    ("NEAR(them)", {"operators"}),
    ("col:on", {"operators"}),
    ("-this", {"operators"}),
    ("th*", {"markup", "operators"}),
    ("^this", {"operators"}),
    ("beside", {"long"}),
    ("x" * 3000, set()),
    ("word", {"far"}),
    ("beyond", set()),
    ("", set()),
    (" \t\n", set()),
    ("'\"\\!&|<->():*", set()),
    ("\ud800", set()),
]


def test_words_find_prompts(engine: sa.Engine) -> None:
    for text, ids in CASES:
        assert found(engine, text) == ids, text


def test_a_megabyte_of_words_is_asked_for_in_part(engine: sa.Engine) -> None:
    assert found(engine, "word " * 200_000) == {"far"}
    assert found(engine, "ab" * 500_000) == set()
    assert found(engine, "word." * 200_000) == {"far"}


@given(text=st.text(max_size=200) | st.text("\"'\\*&|!():<->^ab \0{}", max_size=50))
@hypothesis_settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_text_is_an_error(engine: sa.Engine, text: str) -> None:
    found(engine, text)


def test_the_index_is_used(engine: sa.Engine, database: str) -> None:
    explain = {"sqlite": "EXPLAIN QUERY PLAN", "postgresql": "EXPLAIN"}[database]
    query = with_text(database, "some words")
    statement = str(query.compile(engine, compile_kwargs={"literal_binds": True}))
    with engine.connect() as connection:
        if database == "postgresql":  # few rows are read without it
            connection.exec_driver_sql("SET enable_seqscan = off")
            connection.exec_driver_sql("SET enable_nestloop = off")
        plan = str(connection.exec_driver_sql(f"{explain} {statement}").all())
    assert text_index.NAME in plan or "VIRTUAL TABLE INDEX" in plan


def test_a_changed_and_a_deleted_prompt(engine: sa.Engine) -> None:
    p = tables.user_prompts
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(sa.update(p).where(p.c.interception_id == "path").values(prompt="otherwise"))
        connection.execute(sa.delete(tables.interceptions).where(tables.interceptions.c.id == "accents"))
        connection.execute(sa.delete(p).where(p.c.interception_id == "chinese"))
    assert [found(engine, text) for text in ("import", "otherwise", "café", "hello")] == [
        set(),
        {"path"},
        set(),
        set(),
    ]
