"""What is answered while the database is away, and to questions that take too long."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine

from aibridge_flask.records import database as databases
from aibridge_flask.web.api.errors import TooSlow
from aibridge_flask.web.api.reader import ask_within
from tests.conftest import BOTH_DATABASES, MakeApp
from tests.support.people import Person, app_for_people
from tests.support.upstream import Upstream

ENDLESS = {
    "sqlite": "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n",
    "postgresql": "SELECT pg_sleep(600)",
}


@pytest.mark.parametrize(
    "path", ["/interceptions", "/sessions", "/usage", "/usage?format=csv", "/export", "/tokens"]
)
def test_without_the_database_it_is_503(make_app: MakeApp, upstream: Upstream, path: str) -> None:
    app = app_for_people(make_app, database_url="postgresql+psycopg://nobody@127.0.0.1:9/none")
    response = Person(app, upstream, "root").get(path)
    assert response.status_code == 503
    assert response.get_json() == {
        "message": "the records cannot be read",
        "detail": "the database is away",
        "validations": [],
    }


@pytest.mark.parametrize("page", ["providers", "live"])
def test_pages_that_show_what_works_do_not_need_the_database(
    make_app: MakeApp, upstream: Upstream, page: str
) -> None:
    app = app_for_people(make_app, database_url="postgresql+psycopg://nobody@127.0.0.1:9/none")
    assert Person(app, upstream, "root").get(f"/ui/{page}").status_code == 200


@BOTH_DATABASES
def test_a_question_that_takes_too_long_is_ended(database_url: str, database: str) -> None:
    def ask(engine: Engine) -> None:
        with engine.connect() as connection:
            connection.execute(sa.text(ENDLESS[database]))

    with pytest.raises(TooSlow):
        ask_within(databases.connect(database_url), ask, 0.1)


def test_the_answer_to_it_says_what_to_do(make_app: MakeApp, upstream: Upstream) -> None:
    app = app_for_people(make_app)
    with app.test_request_context():
        from aibridge_flask.web.api.errors import response_to

        response = response_to(TooSlow())
    assert (response.status_code, response.get_json()["detail"]) == (503, "narrow the period")
