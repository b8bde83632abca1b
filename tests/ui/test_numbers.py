"""Numbers of pages are those of the records API."""

from __future__ import annotations

from urllib.parse import quote

from tests.support.chromium import Tab
from tests.ui.conftest import UI, Site

PERIOD = "started_after=2026-01-01T00:00:00Z"


def test_the_overview_has_the_totals_of_usage(tab: Tab, site: Site) -> None:
    totals = site.server.get(f"/usage?{PERIOD}")["totals"]
    page = tab.open(f"{UI}/?{PERIOD}")
    cards = {
        card.locator("h2").inner_text(): card.locator("data").first.get_attribute("value")
        for card in page.locator(".cards .card:has(data)").all()
    }
    tokens = sum(number for name, number in totals.items() if name.endswith("_tokens"))
    assert cards["Cost"] == str(totals["cost_micros"])
    assert cards["Requests"] == str(totals["requests"])
    assert cards["Errors"] == str(totals["errors"])
    assert cards["Tokens"] == str(tokens)
    assert cards["People"] == str(site.server.get(f"/usage?{PERIOD}&group_by=initiator")["count"])


def test_spend_has_the_rows_of_usage(tab: Tab, site: Site) -> None:
    results = site.server.get(f"/usage?{PERIOD}&group_by=client,model")["results"]
    page = tab.open(f"{UI}/spend?{PERIOD}&group_by=client,model")
    shown = [
        [cell.get_attribute("value") for cell in row.locator("data").all()]
        for row in page.locator("tbody tr").all()
    ]
    assert len(shown) == len(results)
    names = ("requests", "errors", "unpriced_requests", "input_tokens", "cache_read_input_tokens",
             "cache_write_input_tokens", "output_tokens", "cache_saved_micros")  # fmt: skip
    for row, result in zip(shown, results, strict=True):
        assert row[-len(names) :] == [str(result[name]) for name in names]


def test_a_session_has_the_numbers_of_the_records_api(tab: Tab, site: Site) -> None:
    (session,) = site.server.get("/sessions?limit=1&q=client:Codex")["sessions"]
    page = tab.open(f"{UI}/sessions/{quote(session['id'], safe='')}")
    values = [card.get_attribute("value") for card in page.locator(".cards .big data").all()]
    tokens = sum(session["token_usage_summary"].values())
    assert values[:2] == [str(session["cost_micros"]), str(tokens)]
    assert page.locator(".transcript .actions > li").count() == session["requests"]


def test_a_csv_has_all_rows_of_its_table(tab: Tab, site: Site) -> None:
    page = tab.open(f"{UI}/spend?{PERIOD}&group_by=initiator,model")
    link = page.get_by_role("link", name="CSV", exact=True).get_attribute("href")
    response = page.request.get(site.root + str(link))
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    lines = response.text().splitlines()
    assert lines[0].startswith("initiator,model,requests")
    assert len(lines) - 1 == site.server.get(f"/usage?{PERIOD}&group_by=initiator,model")["count"]


def test_filters_are_those_of_the_records_api(tab: Tab, site: Site) -> None:
    for parameters in ("model=gpt-5-codex", "q=model:gpt-5-codex", "client=Codex&model=gpt-5-codex"):
        page = tab.open(f"{UI}/interceptions?{PERIOD}&{parameters}")
        count = page.locator("h2 data").get_attribute("value")
        wanted = f"q={quote('model:gpt-5-codex started_after:2026-01-01T00:00:00Z')}"
        assert count == str(site.server.get(f"/interceptions?{wanted}")["count"]), parameters
