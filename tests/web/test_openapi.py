"""The OpenAPI document, and answers as it says."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, given, settings
from openapi_schema_validator import OAS31Validator
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from aibridge_flask.records import database as databases
from aibridge_flask.records import tokens
from tests.conftest import BOTH_DATABASES, MakeApp
from tests.support.people import CHAT, Person, app_for_people, calls, thinks
from tests.support.server import PREFIX
from tests.support.upstream import Upstream

DOCUMENT = f"{PREFIX}/openapi.json"
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


@pytest.fixture
def app(make_app: MakeApp, upstream: Upstream, database_url: str) -> Flask:
    """An application with something of everything."""
    app = app_for_people(make_app)
    ann, bob = (Person(app, upstream, name) for name in ("ann", "bob"))
    tokens.create(databases.connect(database_url), "ann", False, 3, ("red",))
    ann.ask("first", thinks(), calls("toolu_1", path="x"), session="s 1")
    ann.ask(answers="toolu_1", session="s 1")
    ann.ask("second", session="s/2", model="no such model")
    bob.ask(path=CHAT, model="gpt-5")
    bob.ask(status=529)
    return app


def document_of(
    schema: dict[str, Any], path: str, method: str = "get", status: str = "200"
) -> dict[str, Any]:
    """The schema of an answer, with what it refers to."""
    answer = schema["paths"][f"{PREFIX}{path}"][method]["responses"][status]
    return {**answer["content"]["application/json"]["schema"], "components": schema["components"]}


def test_the_document_is_openapi_3_1_and_names_no_error_page_of_others(root: Person) -> None:
    schema = root.read("/openapi.json")
    assert schema["openapi"].startswith("3.1")
    assert schema["info"]["title"] == "AI Bridge"
    for operations in schema["paths"].values():
        for method, operation in operations.items():
            assert method == "parameters" or {"200", "400", "401", "403", "503"} <= {
                *operation["responses"],
                "200",
            }


@pytest.mark.parametrize(
    "path",
    [
        "/interceptions",
        "/sessions",
        "/sessions/s%201",
        "/usage?group_by=day,model,group",
        "/tools?group_by=session",
        "/models",
    ],
)
@BOTH_DATABASES
def test_a_real_answer_has_what_its_document_says_and_nothing_else(root: Person, path: str) -> None:
    schema = root.read("/openapi.json")
    answer = root.read(path)
    documented = path.partition("?")[0].replace("s%201", "{id}")
    OAS31Validator(document_of(schema, documented)).validate(answer)
    assert answer


@BOTH_DATABASES
def test_whatever_is_asked_the_answer_is_a_documented_one(app: Flask) -> None:
    schema = schemathesis.openapi.from_wsgi(DOCUMENT, app, headers={"X-Who": "root"})
    for found in schema.get_all_operations():
        operation = found.ok()

        @given(case=operation.as_strategy())
        @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        def check(case: Any) -> None:
            case.call_and_validate(headers={"X-Who": "root"}, checks=CHECKS)

        check()
