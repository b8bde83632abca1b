"""`/export`: JSON lines in the order of their ends, resumable."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from aibridge_flask.records import database as databases
from aibridge_flask.records.sum_tables import audit
from tests.conftest import BOTH_DATABASES
from tests.support.history import History
from tests.support.people import Person, calls, thinks

pytestmark = BOTH_DATABASES
DAY = datetime(2026, 11, 2, tzinfo=UTC)


def lines(person: Person, **parameters: object) -> list[dict[str, Any]]:
    response = person.get("/export", query_string=parameters)
    assert (response.status_code, response.mimetype) == (200, "application/x-ndjson")
    return [json.loads(line) for line in response.text.splitlines()]


def test_a_line_is_an_interception_with_its_number(ann: Person) -> None:
    id = ann.ask("first", thinks(), calls("toolu_1"), session="s")
    (line,) = lines(ann)
    seq = line.pop("seq")
    assert seq > 0
    assert line == ann.read(f"/interceptions/{id}")


def test_an_export_goes_on_where_the_last_one_ended(root: Person, history: History) -> None:
    ids = {history.add("ann", DAY + timedelta(hours=-n)) for n in range(250)}
    history.add("ann", DAY, is_running=True)
    whole = lines(root)
    assert {line["id"] for line in whole} == ids
    numbers = [line["seq"] for line in whole]
    assert len(numbers) == 250
    assert numbers == sorted(set(numbers))
    assert lines(root, after_seq=numbers[-1]) == []
    assert lines(root, after_seq=numbers[99]) == whole[100:]
    later = history.add("bob", DAY)
    assert [line["id"] for line in lines(root, after_seq=numbers[-1])] == [later]
    assert [line["id"] for line in lines(root, q="initiator:bob")] == [later]


def test_others_export_their_own_and_administrators_leave_a_trace(
    ann: Person, root: Person, history: History, database_url: str
) -> None:
    own = history.add("ann", DAY)
    history.add("bob", DAY)
    assert [line["id"] for line in lines(ann)] == [own]
    assert lines(ann, q="initiator:bob") == []
    assert len(lines(root, q="kind:main")) == 2
    with databases.connect(database_url).connect() as connection:
        rows = connection.execute(sa.select(audit.c.actor_id, audit.c.action, audit.c.target)).all()
    assert [tuple(row) for row in rows] == [("root", "records.export", "kind:main")]


def test_a_long_text_is_whole(root: Person, history: History) -> None:
    long = "é" * (5 << 20)
    history.add("ann", DAY, prompt=long)
    assert lines(root)[0]["user_prompts"][0]["prompt"] == long


@pytest.mark.parametrize(
    "query", ["after_seq=-1", "after_seq=x", "after_seq=9223372036854775808", "q=nonsense"]
)
def test_a_bad_question_is_400(root: Person, query: str) -> None:
    assert root.get(f"/export?{query}").status_code == 400
