"""`/tokens`: who may create, see and revoke which."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from aibridge_flask.records import database as databases
from aibridge_flask.records import tokens
from tests.conftest import BOTH_DATABASES, MakeApp
from tests.support.server import PREFIX

pytestmark = BOTH_DATABASES
TOKENS = f"{PREFIX}/tokens"


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app(auth={"mode": "token"})


class Holder:
    """Asks with a gateway token."""

    def __init__(self, app: Flask, token: str) -> None:
        self._client: FlaskClient = app.test_client()
        self._headers = {"X-AIBridge-Token": token}

    def get(self, path: str = "/tokens") -> TestResponse:
        return self._client.get(PREFIX + path, headers=self._headers)

    def list(self) -> list[dict[str, Any]]:
        results: list[dict[str, Any]] = self.get().get_json()["results"]
        return results

    def create(self, **body: object) -> TestResponse:
        return self._client.post(TOKENS, json=body, headers=self._headers)

    def revoke(self, id: str) -> int:
        headers = {**self._headers, "Content-Type": "application/json"}
        return self._client.delete(f"{TOKENS}/{id}", headers=headers).status_code


@pytest.fixture
def ann(app: Flask, database_url: str) -> Holder:
    engine = databases.connect(database_url)
    return Holder(app, tokens.create(engine, "ann", False, 10, ("blue", "red")))


@pytest.fixture
def root(app: Flask, database_url: str) -> Holder:
    return Holder(app, tokens.create(databases.connect(database_url), "root", True, 0))


def test_a_token_is_shown_once_and_works(app: Flask, root: Holder) -> None:
    response = root.create(user="bob", groups=["red", "blue", "red"], days=3)
    assert response.status_code == 201
    made = response.get_json()
    token = made.pop("token")
    assert token.startswith("aib_")
    assert (made["user"], made["groups"], made["admin"]) == ("bob", ["blue", "red"], False)
    assert datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(
        made["created_at"]
    ) <= timedelta(3, 1)
    me = Holder(app, token).get("/me").get_json()
    assert (me["id"], me["groups"], me["admin"]) == ("bob", ["blue", "red"], False)
    listing = root.get().get_data(as_text=True)
    assert token not in listing
    assert made["id"] in listing
    assert "digest" not in listing


def test_others_create_for_themselves_alone(app: Flask, ann: Holder) -> None:
    made = ann.create().get_json()
    assert (made["user"], made["groups"], made["admin"]) == ("ann", ["blue", "red"], False)
    assert ann.create(groups=["red"]).get_json()["groups"] == ["red"]
    for body in ({"user": "bob"}, {"admin": True}, {"groups": ["red", "green"]}):
        assert ann.create(**body).status_code == 403
    assert {token["user"] for token in ann.list()} == {"ann"}


@pytest.mark.parametrize("days", [0, 5, 365])
def test_no_token_outlives_the_one_that_made_it(ann: Holder, days: int) -> None:
    made = ann.create(days=days).get_json()
    end = datetime.fromisoformat(made["expires_at"])
    (used,) = [token for token in ann.list() if token["id"] != made["id"]]
    assert end <= datetime.fromisoformat(used["expires_at"])
    wanted = datetime.now(UTC) + timedelta(days=min(days or 10, 10))
    assert abs(end - wanted) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"user": ""}, "user"),
        ({"user": "a\nb"}, "user"),
        ({"user": "x" * 300}, "user"),
        ({"user": 5}, "user"),
        ({"groups": "red"}, "groups"),
        ({"groups": ["red", ""]}, "groups.1"),
        ({"admin": "yes"}, "admin"),
        ({"days": -1}, "days"),
        ({"days": "3"}, "days"),
        ({"day": 3}, "day"),
    ],
)
def test_a_wrong_member_is_named(root: Holder, body: dict[str, object], field: str) -> None:
    response = root.create(**body)
    assert response.status_code == 400
    assert [error["field"] for error in response.get_json()["validations"]] == [field]


def test_a_body_that_is_not_json_is_400(app: Flask, root: Holder) -> None:
    client, headers = app.test_client(), root._headers
    for data in (b"{", b"[1]", b"\xff", b"5"):
        response = client.post(TOKENS, data=data, headers=headers, content_type="application/json")
        assert response.status_code == 400, data
        assert set(response.get_json()) == {"message", "detail", "validations"}


def test_a_token_is_revoked_by_its_user_and_by_administrators(app: Flask, ann: Holder, root: Holder) -> None:
    own, other = ann.create().get_json()["id"], root.create(user="bob").get_json()["id"]
    assert ann.revoke(other) == 404
    assert ann.revoke(own) == 204
    assert ann.revoke(own) == 204
    assert root.revoke(other) == 204
    assert root.revoke("nobodys") == 404
    assert all(token["revoked_at"] for token in root.list() if token["id"] in (own, other))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/x-www-form-urlencoded"}, 400),
        ({"Content-Type": "text/plain"}, 400),
        ({"Content-Type": "application/json", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Content-Type": "application/json", "Sec-Fetch-Site": "same-site"}, 403),
        ({"Content-Type": "application/json", "Origin": "https://evil.example"}, 403),
        ({"Content-Type": "application/json", "Origin": "null"}, 403),
        ({"Content-Type": "application/json", "Origin": "http://localhost"}, 201),
        ({"Content-Type": "application/json; charset=utf-8", "Sec-Fetch-Site": "same-origin"}, 201),
    ],
)
def test_another_sites_page_creates_no_token(
    app: Flask, root: Holder, headers: dict[str, str], status: int
) -> None:
    response = app.test_client().post(TOKENS, data=b"{}", headers={**root._headers, **headers})
    assert response.status_code == status
    assert len(root.list()) == (2 if status == 201 else 1)


def test_tokens_are_paged_newest_first(root: Holder) -> None:
    made = [root.create(user=f"u{n}").get_json()["id"] for n in range(3)]
    page = root.get("/tokens?limit=2").get_json()
    assert [token["id"] for token in page["results"]] == [made[2], made[1]]
    assert (page["count"], page["next_after_id"]) == (4, made[1])
    rest = root.get(f"/tokens?limit=2&after_id={made[1]}").get_json()
    assert (rest["results"][0]["id"], rest["next_after_id"]) == (made[0], None)
    assert root.get("/tokens?after_id=x").status_code == 400


def test_the_audit_says_who_made_and_revoked_what(root: Holder, ann: Holder) -> None:
    id = ann.create(groups=["red"]).get_json()["id"]
    root.revoke(id)
    answer = root.get("/audit?limit=2").get_json()
    assert [(row["actor_id"], row["action"], row["target"]) for row in answer["results"]] == [
        ("root", "token.revoke", id),
        ("ann", "token.create", id),
    ]
    assert answer["results"][1]["after"]["groups"] == ["red"]
    after = root.get(f"/audit?after_id={answer['next_after_id']}").get_json()
    assert after["count"] == answer["count"] == len(after["results"]) + 2
    assert ann.get("/audit").status_code == 403
