"""Forms, headers and errors of pages, with Flask's own client."""

from __future__ import annotations

import re

import pytest
from flask import Flask

from tests.conftest import BOTH_DATABASES
from tests.support.people import Person
from tests.ui.conftest import UI
from tests.ui.test_login import field_of

SECRET = re.compile(r'<code class="secret">(aib_[\w-]+)</code>')


def post(person: Person, path: str, **form: str) -> object:
    field = field_of(person.get("/ui/tokens"))
    return person.get(f"/ui{path}", "POST", data={"csrf": field, **form})


def test_a_token_is_shown_once_and_revoked(root: Person) -> None:
    made = post(root, "/tokens", user="carol", groups="a, b", days="30", admin="on")
    assert made.status_code == 201
    found = SECRET.search(made.get_data(as_text=True))
    assert found
    (row,) = root.read("/tokens")["results"]
    assert (row["user"], row["groups"], row["admin"]) == ("carol", ["a", "b"], True)
    assert found[1] not in root.get("/ui/tokens").get_data(as_text=True)
    assert post(root, f"/tokens/{row['id']}/revoke").status_code == 303
    assert root.read("/tokens")["results"][0]["revoked_at"]


def test_people_make_tokens_for_themselves_alone(ann: Person, root: Person) -> None:
    assert post(ann, "/tokens", days="7").status_code == 201
    (row,) = ann.read("/tokens")["results"]
    assert (row["user"], row["groups"], row["admin"]) == ("ann", ["blue", "red"], False)
    assert post(ann, "/tokens", user="root").status_code == 403
    assert post(ann, "/tokens", admin="on").status_code == 403
    assert post(ann, "/tokens", groups="other").status_code == 403
    assert post(ann, "/tokens", days="-1").status_code == 400
    assert post(ann, "/tokens", days="x").status_code == 400
    post(root, "/tokens", user="bob")
    (of_bob,) = (row for row in root.read("/tokens")["results"] if row["user"] == "bob")
    assert post(ann, f"/tokens/{of_bob['id']}/revoke").status_code == 404


def test_each_form_is_bound_to_its_visitor(ann: Person, root: Person) -> None:
    field = field_of(ann.get("/ui/tokens"))
    for form in ({}, {"csrf": ""}, {"csrf": field[:-2]}, {"csrf": field}):
        assert root.get("/ui/tokens", "POST", data={"user": "x", **form}).status_code == 400
    crossing = {"Origin": "https://evil.example"}
    own = {"csrf": field_of(root.get("/ui/tokens"))}
    assert root.get("/ui/tokens", "POST", data=own, headers=crossing).status_code == 403
    assert root.read("/tokens")["count"] == 0


def test_headers_of_pages(ann: Person) -> None:
    for path in ("/ui/", "/ui/nothing", "/ui/sessions/nothing"):
        headers = ann.get(path).headers
        policy = headers["Content-Security-Policy"]
        for part in ("default-src 'self'", "base-uri", "form-action", "frame-ancestors"):
            assert part in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"]
    assert "immutable" in ann.get("/ui/static/dashboard.css").headers["Cache-Control"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/ui/?started_after=soon", 400),
        ("/ui/?started_after=2999-01-01", 400),
        ("/ui/?q=what", 400),
        ("/ui/spend?group_by=colour", 400),
        ("/ui/sessions?offset=x", 400),
        ("/ui/sessions?cost_above=much", 400),
        ("/ui/sessions?model=a%00b", 400),
        ("/ui/csv/nothing", 400),
        ("/ui/sessions/nothing", 404),
        ("/ui/interceptions/nothing", 404),
        ("/ui/static/..%2fpages.py", 404),
        ("/ui/static/pages.py", 404),
    ],
)
def test_what_is_wrong_is_said_on_a_page(ann: Person, path: str, status: int) -> None:
    response = ann.get(path)
    assert response.status_code == status
    assert response.mimetype == "text/html"
    assert "<h1>" in response.get_data(as_text=True)


def test_empty_pages_say_what_to_do(ann: Person) -> None:
    for path in ("/", "/spend", "/sessions", "/live", "/limits", "/providers", "/tokens", "/interceptions"):
        assert ann.get(f"/ui{path}").status_code == 200
    assert "point a client at the bridge" in ann.get("/ui/").get_data(as_text=True)


def test_nobody_is_told_so_where_there_is_no_login(app: Flask) -> None:
    response = app.test_client().get(f"{UI}/")
    assert (response.status_code, response.mimetype) == (401, "text/html")
    assert app.test_client().get(f"{UI}/login").status_code == 303


@BOTH_DATABASES
def test_one_request_on_its_page(ann: Person) -> None:
    id = ann.ask(
        "What is this?", {"type": "tool_use", "id": "t1", "name": "Read", "input": {"a": 1}}, session="s 1/é"
    )
    page = ann.get(f"/ui/interceptions/{id}").get_data(as_text=True)
    assert "What is this?" in page
    assert "Tool" in page
    session = ann.get("/ui/sessions/s%201%2F%C3%A9")
    assert session.status_code == 200
    assert "What is this?" in session.get_data(as_text=True)
    for path in ("/", "/spend?group_by=model,day", "/sessions?text=what", "/interceptions", "/csv/sessions"):
        assert ann.get(f"/ui{path}").status_code == 200


def test_no_page_is_large_whatever_was_written(ann: Person) -> None:
    words = '"' * 1_000_000
    for number in range(8):
        call = {"type": "tool_use", "id": f"t{number}", "name": "x" * 3000, "input": {"a": words}}
        id = ann.ask(words, call, {"type": "thinking", "thinking": words}, session="long")
    for path in ("/ui/sessions/long", f"/ui/interceptions/{id}", "/ui/sessions", "/ui/interceptions", "/ui/"):
        response = ann.get(path)
        assert response.status_code == 200
        assert len(response.get_data()) < 4 << 20, path


def test_a_form_is_short(ann: Person) -> None:
    field = field_of(ann.get("/ui/tokens"))
    assert ann.get("/ui/tokens", "POST", data={"csrf": field, "user": "x" * 100_000}).status_code == 413


@pytest.mark.parametrize(
    "period", ["started_after=0001-01-01", "started_after=1980-01-01&started_before=9999-12-31"]
)
def test_any_period_is_drawn(ann: Person, period: str) -> None:
    ann.ask()
    for path in ("/ui/", "/ui/spend", "/ui/sessions", "/ui/interceptions", "/ui/csv/usage"):
        response = ann.get(f"{path}?{period}")
        assert response.status_code == 200
        assert len(response.get_data()) < 1 << 20


def test_limits_are_made_changed_and_ended(ann: Person, root: Person) -> None:
    ann.ask()
    form = {
        "name": "ann <b>",
        "scope": "actor=ann",
        "per": "day",
        "tokens": "200",
        "models": "claude-*, gpt-5",
    }
    assert post(ann, "/limits", **form).status_code == 403
    assert post(root, "/limits", **form).status_code == 303
    assert post(root, "/limits", **form).status_code == 409
    (limit,) = root.read("/limits")["results"]
    assert (limit["scope"], limit["models"], limit["used"][0]["spent"]) == (
        {"actor": "ann"},
        ["claude-*", "gpt-5"],
        100,
    )
    page = root.get("/ui/limits").get_data(as_text=True)
    assert "ann &lt;b&gt;" in page
    assert "50 %" in page
    assert "50 %" in ann.get("/ui/limits").get_data(as_text=True)
    assert root.get("/ui/csv/limits").get_data(as_text=True).startswith("name,of,amount,per,mode,spent,held,")
    assert post(root, f"/limits/{limit['id']}", tokens="400", mode="warn").status_code == 303
    assert [root.read("/limits")["results"][0][name] for name in ("tokens", "mode")] == [400, "warn"]
    assert post(root, f"/limits/{limit['id']}", tokens="many").status_code == 400
    assert post(ann, f"/limits/{limit['id']}/end").status_code == 403
    assert post(root, f"/limits/{limit['id']}/end").status_code == 303
    assert root.read("/limits")["count"] == 0
    assert (
        post(
            root,
            "/limits",
            name="g",
            scope="group=red",
            shared="on",
            per="total",
            usd="1.5",
            until="2030-01-31",
        ).status_code
        == 303
    )
    assert root.read("/limits")["results"][0]["scope"] == {"group": "red", "shared": True}


def test_only_administrators_stop_what_runs(ann: Person, root: Person) -> None:
    assert post(ann, "/live/x/stop").status_code == 403
    assert post(root, "/live/x/stop").status_code == 404


def test_limits_nearest_to_their_end_are_on_the_overview(ann: Person, root: Person) -> None:
    ann.ask()
    for name, tokens in (("far", "1000"), ("near", "110")):
        form = {"name": name, "scope": "actor=ann", "per": "day", "tokens": tokens}
        assert post(root, "/limits", **form).status_code == 303
    for person in (ann, root):
        _, _, card = person.get("/ui/").get_data(as_text=True).partition("Limits nearest to their end")
        shown = card.partition("</section>")[0]
        assert "91 %" in shown
        assert shown.index("near") < shown.index("far")


def test_what_runs_is_in_a_file_as_well(ann: Person) -> None:
    response = ann.get("/ui/csv/live")
    assert response.get_data(as_text=True).startswith("id,initiator_id,client,session_id,model,age_ms")
