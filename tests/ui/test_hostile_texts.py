"""What clients and models write is data on every page."""

from __future__ import annotations

import re
from urllib.parse import quote

from tests.support.chromium import Tab
from tests.support.hostile import PERSON, SESSION, TEXTS
from tests.ui.conftest import UI, Site

CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
PERIOD = "started_after=2026-01-01T00:00:00Z"


def hostile_paths(site: Site) -> list[str]:
    results = site.server.get(f"/interceptions?limit=50&q={quote('error_type:server_error')}")["results"]
    ids = [result["id"] for result in results if result["initiator_id"] == PERSON]
    assert len(ids) == len(TEXTS)
    session = f"/sessions/{quote(SESSION, safe='')}"
    by = [f"/spend?{PERIOD}&group_by={keys}" for keys in ("model,client", "initiator,group")]
    overview = [
        f"/?{PERIOD}&group_by={key}&initiator={quote(PERSON)}" for key in ("model", "group", "client")
    ]
    return [
        *by,
        *overview,
        f"/sessions?{PERIOD}",
        f"/interceptions?{PERIOD}",
        session,
        *(f"/interceptions/{id}" for id in ids[:3]),
    ]


def test_no_text_becomes_more_than_a_text(tab: Tab, site: Site) -> None:
    for path in hostile_paths(site):
        page = tab.open(UI + path)
        assert page.locator("main script, main img, main iframe, main link, main b script").count() == 0, path
        assert page.locator("a[href^='javascript:']").count() == 0, path
        source = page.content()
        assert CONTROLS.search(source) is None, path
        assert "onerror=alert(2)>" not in source.replace("&gt;", ""), path


def test_names_are_isolated_and_the_rest_of_the_page_keeps_its_direction(tab: Tab, site: Site) -> None:
    page = tab.open(f"{UI}/sessions/{quote(SESSION, safe='')}")
    assert page.locator(".transcript pre > bdi").count() > 0
    assert "alert(1)" in page.locator(".transcript").inner_text()
    assert "{{ 7 * 7 }}" in page.locator(".transcript").inner_text()


def test_long_texts_are_shortened_with_the_whole_behind_a_link(tab: Tab, site: Site) -> None:
    page = tab.open(f"{UI}/sessions/{quote(SESSION, safe='')}")
    assert page.locator(".cut").count() > 0
    link = page.locator("li:has(.cut) .action a, article:has(.said .cut) .action a").first
    link.click()
    page.wait_for_url("**/interceptions/*")
    assert "-" * 5000 in page.locator("main").inner_text()
