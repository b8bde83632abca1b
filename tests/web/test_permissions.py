"""Who may ask what: an administrator, the owner, somebody else, nobody."""

from __future__ import annotations

import pytest
from flask import Flask

from tests.support.people import Person
from tests.support.upstream import Upstream

FOR_ALL = [
    *("/interceptions", "/usage", "/usage?format=csv", "/usage?format=focus", "/tools", "/tools?format=csv"),
    *("/me", "/live", "/tokens", "/export", "/sessions", "/models", "/clients", "/groups", "/openapi.json"),
]
FOR_ADMINS = ["/audit", "/providers", "/providers/mcp"]


@pytest.mark.parametrize("path", [*FOR_ALL, *FOR_ADMINS])
def test_nobody_is_401(app: Flask, upstream: Upstream, path: str) -> None:
    response = Person(app, upstream, "").get(path)
    assert response.status_code == 401
    assert set(response.get_json()) == {"message", "detail", "validations"}


@pytest.mark.parametrize("path", [*FOR_ALL, *FOR_ADMINS])
def test_an_administrator_may_ask_everything(app: Flask, upstream: Upstream, path: str) -> None:
    assert Person(app, upstream, "root").get(path).status_code == 200


@pytest.mark.parametrize("path", FOR_ALL)
def test_everybody_may_ask_for_what_is_theirs(app: Flask, upstream: Upstream, path: str) -> None:
    assert Person(app, upstream, "ann").get(path).status_code == 200


@pytest.mark.parametrize("path", FOR_ADMINS)
def test_what_is_for_administrators_is_403_for_others(app: Flask, upstream: Upstream, path: str) -> None:
    response = Person(app, upstream, "ann").get(path)
    assert (response.status_code, response.get_json()["detail"]) == (403, "admins_only")


def test_an_interception_is_shown_to_its_owner_and_to_administrators(app: Flask, upstream: Upstream) -> None:
    ann, bob, root = (Person(app, upstream, name) for name in ("ann", "bob", "root"))
    id = ann.ask()
    assert [person.get(f"/interceptions/{id}").status_code for person in (ann, root, bob)] == [200, 200, 404]
    assert [person.read("/interceptions")["count"] for person in (ann, root, bob)] == [1, 1, 0]
    assert bob.get(f"/interceptions?after_id={id}").status_code == 400
    assert bob.read("/interceptions", q="initiator:ann")["count"] == 0


@pytest.mark.parametrize(("method", "path"), [("POST", "/tokens"), ("DELETE", "/tokens/x")])
def test_nobody_changes_anything(app: Flask, upstream: Upstream, method: str, path: str) -> None:
    assert Person(app, upstream, "").change(method, path, {}).status_code == 401
