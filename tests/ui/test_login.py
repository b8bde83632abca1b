"""Logging in and out, by a browser and by hand: the cookie, its end, and what each person may see."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Browser
from werkzeug.test import TestResponse

from aibridge_flask.records import database, tokens
from tests.conftest import BOTH_DATABASES, MakeApp
from tests.support.chromium import open_tab
from tests.support.server import PREFIX
from tests.ui.conftest import UI, Site

HIDDEN = re.compile(r'name="csrf" value="([^"]+)"')


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app(auth={"mode": "token"})


def new_token(app: Flask, user: str, admin: bool = False) -> str:
    engine = database.connect(app.config["AIBRIDGE_SETTINGS"].database_url)
    return tokens.create(engine, user, admin, 0)


def field_of(response: TestResponse) -> str:
    found = HIDDEN.search(response.get_data(as_text=True))
    assert found
    return found[1]


def log_in(client: FlaskClient, token: str, **options: Any) -> TestResponse:
    field = field_of(client.get(f"{UI}/login", **options))
    return client.post(f"{UI}/login", data={"token": token, "csrf": field}, **options)


def test_a_visitor_logs_in_looks_around_and_out(browser: Browser, site: Site) -> None:
    tab = open_tab(browser, site.root)
    page = tab.open(f"{UI}/sessions?model=gpt-5-codex")  # by way of the login
    assert page.url.startswith(f"{site.root}{UI}/login")
    page.get_by_label("Token").fill(site.tokens["ada@example.com"])
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"**{UI}/sessions?model=gpt-5-codex")
    assert page.locator("h1").inner_text() == "Sessions"
    (cookie,) = page.context.cookies(site.root + UI)
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["name"]) == (True, "Lax", "aibridge_login")
    assert page.request.get(f"{site.root}{PREFIX}/me").json()["id"] == "ada@example.com"
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url(f"**{UI}/login")
    assert page.request.get(f"{site.root}{PREFIX}/me").status == 401
    page.context.close()
    tab.assert_clean()


def test_people_see_themselves_alone(browser: Browser, site: Site) -> None:
    own = f"q={quote('initiator:ada@example.com started_after:2026-01-01T00:00:00Z')}"
    count = site.server.get(f"/interceptions?{own}")["count"]
    (other,) = site.server.get(f"/sessions?limit=1&q={quote('initiator:bo@example.com')}")["sessions"]
    (record,) = site.server.get(f"/interceptions?limit=1&q={quote('initiator:bo@example.com')}")["results"]
    tab = open_tab(browser, site.root, site.tokens["ada@example.com"])
    page = tab.open(f"{UI}/interceptions?started_after=2026-01-01T00:00:00Z")
    assert page.locator("h2 data").get_attribute("value") == str(count)
    everywhere = [
        tab.open(UI + path).locator("main").inner_text() for path in ("/", "/spend?group_by=initiator")
    ]
    assert "bo@example.com" not in "".join(everywhere)
    for path in (f"/sessions/{other['id']}", f"/interceptions/{record['id']}"):
        assert page.request.get(site.root + UI + path).status == 404
    assert "sk-ant" not in tab.open(f"{UI}/providers").locator("main").inner_text()
    page.context.close()
    tab.assert_clean()


def test_without_a_login_each_page_leads_to_it(app: Flask) -> None:
    client = app.test_client()
    response = client.get(f"{UI}/spend?group_by=model")
    assert response.status_code == 303
    assert response.headers["Location"] == f"{UI}/login?next={quote(f'{UI}/spend?group_by=model', safe='')}"


@pytest.mark.parametrize(
    "wanted", ["https://evil.example/", "//evil.example", f"{UI}/../x", "/\\evil.example"]
)
def test_a_login_leads_to_the_dashboard_alone(app: Flask, wanted: str) -> None:
    client = app.test_client()
    field = field_of(client.get(f"{UI}/login", query_string={"next": wanted}))
    form = {"token": new_token(app, "ann"), "csrf": field, "next": wanted}
    assert client.post(f"{UI}/login", data=form).headers["Location"] == f"{UI}/"


def test_a_login_needs_its_form(app: Flask) -> None:
    token, client = new_token(app, "ann"), app.test_client()
    assert client.post(f"{UI}/login", data={"token": token}).status_code == 400
    other = field_of(app.test_client().get(f"{UI}/login"))
    client.get(f"{UI}/login")
    assert client.post(f"{UI}/login", data={"token": token, "csrf": other}).status_code == 400
    crossing = {"Sec-Fetch-Site": "cross-site"}
    field = field_of(client.get(f"{UI}/login"))
    refused = client.post(f"{UI}/login", data={"token": token, "csrf": field}, headers=crossing)
    assert refused.status_code == 403
    assert log_in(client, "aib_wrong").status_code == 401
    assert log_in(client, token).status_code == 303


def test_the_cookie_is_secure_under_https(app: Flask) -> None:
    token = new_token(app, "ann")
    over_https = log_in(app.test_client(), token, base_url="https://localhost")
    over_http = log_in(app.test_client(), token)
    flags = [
        [cookie for cookie in response.headers.getlist("Set-Cookie") if cookie.startswith("aibridge_login=")]
        for response in (over_https, over_http)
    ]
    assert ["; Secure" in cookie for (cookie,) in flags] == [True, False]
    assert all(
        "HttpOnly" in cookie and "SameSite=Lax" in cookie and token not in cookie for (cookie,) in flags
    )


@BOTH_DATABASES
def test_a_copied_cookie_ends_with_the_logout(app: Flask) -> None:
    client = app.test_client()
    log_in(client, new_token(app, "ann"))
    copied = client.get_cookie("aibridge_login", path=PREFIX)
    assert copied is not None
    page = client.get(f"{UI}/tokens")
    assert client.post(f"{UI}/logout", data={"csrf": field_of(page)}).status_code == 303
    client.set_cookie("aibridge_login", copied.value, path=PREFIX)
    assert client.get(f"{UI}/tokens").status_code == 303
    assert client.get(f"{PREFIX}/me").status_code == 401


def test_a_login_ends_with_its_token(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    client, root = app.test_client(), app.test_client()
    token = new_token(app, "ann")
    log_in(client, token)
    log_in(root, new_token(app, "root", admin=True))
    assert client.get(f"{UI}/").status_code == 200
    (row,) = (row for row in root.get(f"{PREFIX}/tokens").get_json()["results"] if row["user"] == "ann")
    form = {"csrf": field_of(root.get(f"{UI}/tokens"))}
    assert root.post(f"{UI}/tokens/{row['id']}/revoke", data=form).status_code == 303
    from aibridge_flask.identity import token as module

    begin = module.monotonic()
    monkeypatch.setattr(module, "monotonic", lambda: begin + 30)
    assert client.get(f"{UI}/").status_code == 303


def test_a_forged_cookie_is_no_login(app: Flask) -> None:
    client = app.test_client()
    log_in(client, new_token(app, "ann"))
    cookie = client.get_cookie("aibridge_login", path=PREFIX)
    assert cookie is not None
    payload, rest = cookie.value.split(".", 1)
    for value in (f"{payload}x.{rest}", payload, "", "null", f"{payload}.{rest[:-2]}AA"):
        client.set_cookie("aibridge_login", value, path=PREFIX)
        assert client.get(f"{UI}/").status_code == 303, value


def test_the_cookie_changes_nothing_but_by_forms(app: Flask) -> None:
    client = app.test_client()
    log_in(client, new_token(app, "ann"))
    assert client.get(f"{PREFIX}/me").get_json()["id"] == "ann"
    assert client.post(f"{PREFIX}/tokens", json={}).status_code == 401
    bridged = client.post(f"{PREFIX}/anthropic/v1/messages", json={"model": "m", "messages": []})
    assert bridged.status_code == 401


def test_a_token_in_the_request_needs_no_login(app: Flask) -> None:
    client = app.test_client()
    headers = {"Authorization": f"Bearer {new_token(app, 'ann')}"}
    page = client.get(f"{UI}/tokens", headers=headers)
    assert page.status_code == 200
    assert client.post(f"{UI}/tokens", headers=headers, data={"days": "1"}).status_code == 400
    form = {"days": "1", "csrf": field_of(page)}
    assert client.post(f"{UI}/tokens", headers=headers, data=form).status_code == 201
    assert client.get(f"{UI}/", headers={"X-AIBridge-Token": "aib_wrong"}).status_code in (303, 401)
