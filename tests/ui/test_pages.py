"""Every page in a real browser: whole, readable, operable, and nothing from anywhere else."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Response

from tests.support.chromium import PHONE, WIDE, Tab, open_tab
from tests.ui.conftest import UI, Site

NAVIGATION = ["Overview", "Spend", "Sessions", "Live", "Limits", "Providers", "Tokens"]
PATHS = ["/", "/spend", "/sessions", "/live", "/limits", "/providers", "/tokens", "/interceptions"]
SERIOUS = ("serious", "critical")
MORE_OF_THE_SAME = {
    "exclude": [["tbody tr:nth-child(n+5)"], [".actions li:nth-child(n+5)"], ["article ~ article"]]
}
ALL_RULES = {"resultTypes": ["violations"]}
CONTRAST = {**ALL_RULES, "runOnly": {"type": "rule", "values": ["color-contrast"]}}


def paths(site: Site) -> list[str]:
    """All pages, with the session that has the most requests, and one request."""
    sessions = site.server.get("/sessions?limit=300&q=client:%22Claude%20Code%22")["sessions"]
    longest = max(sessions, key=lambda session: session["requests"])
    (newest,) = site.server.get("/interceptions?limit=1&q=tool:Read")["results"]
    session = f"/sessions/{quote(longest['id'], safe='')}?initiator={longest['initiator']['id']}"
    two_keys = "/spend?group_by=initiator,model&amount=tokens"
    return [*PATHS, two_keys, session, f"/interceptions/{newest['id']}"]


@pytest.mark.parametrize(
    ("theme", "size", "rules"),
    [("light", WIDE, [ALL_RULES]), ("dark", WIDE, [CONTRAST]), ("light", PHONE, []), ("dark", PHONE, [])],
)
def test_every_page_is_whole(
    browser: Browser, site: Site, theme: str, size: tuple[int, int], rules: list[dict[str, object]]
) -> None:
    tab = open_tab(browser, site.root, site.tokens["root"], theme, size)
    titles = set()
    for number, path in enumerate(paths(site)):
        page = tab.open(UI + path)
        assert page.locator("h1").count() == 1, path
        assert page.locator("header nav a").all_inner_texts() == NAVIGATION, path
        assert "UTC" in page.locator("footer").inner_text()
        assert _overflow(page) <= 0, path
        if theme == "light" or number % 3 == 0:  # all colours are on a few pages
            assert [fault for options in rules for fault in _faults(page, options)] == [], path
        for table in page.locator("section:has(table)").all():
            assert table.get_by_role("link", name="CSV", exact=True).count() > 0, path
        titles.add(page.title())
    assert len(titles) == len(PATHS) + 2  # the two of spend have one
    tab.page.context.close()
    tab.assert_clean()


def _overflow(page: Page) -> int:
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


def _faults(page: Page, options: dict[str, object]) -> list[str]:
    violations = Axe().run(page, MORE_OF_THE_SAME, options).response["violations"]
    return [
        f"{each['id']}: {node['html'][:200]}"
        for each in violations
        if each["impact"] in SERIOUS
        for node in each["nodes"]
    ]


def test_all_is_within_150_kb_on_the_first_visit(tab: Tab) -> None:
    responses: list[Response] = []
    tab.page.on("response", lambda response: responses.append(response))
    tab.open(f"{UI}/")
    sizes = [len(response.body()) for response in responses]
    assert len(sizes) > 2
    assert sum(sizes) < 150_000


def test_pages_are_operated_by_keyboard(tab: Tab) -> None:
    page = tab.open(f"{UI}/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.get_by_role("link", name="Sessions").focus()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{UI}/sessions")
    page.get_by_label("Words of a prompt").focus()
    page.keyboard.type("invoice export")
    page.keyboard.press("Enter")
    page.wait_for_url("**text=invoice+export**")
    rows = page.locator("tbody tr")
    assert rows.count() > 0
    rows.first.get_by_role("link").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{UI}/sessions/*")
    assert page.locator(".transcript article").count() > 0


def test_a_hint_shows_the_numbers_of_a_bar(tab: Tab) -> None:
    page = tab.open(f"{UI}/")
    page.locator(".tall .hit").nth(3).hover()
    assert "$" in page.locator(".tip").inner_text()


def test_pages_stand_without_script(browser: Browser, site: Site) -> None:
    context = browser.new_context(
        java_script_enabled=False, extra_http_headers={"X-AIBridge-Token": site.tokens["root"]}
    )
    page = context.new_page()
    page.goto(f"{site.root}{UI}/")
    assert page.locator(".tall path").count() > 1
    page.get_by_role("link", name="Person", exact=True).click()
    assert page.get_by_role("rowheader", name="ada@example.com").count() > 0
    context.close()


def test_from_each_number_of_spend_to_its_records(tab: Tab) -> None:
    page = tab.open(f"{UI}/spend?group_by=model,client")
    row = page.locator("tbody tr").first
    requests = row.locator("td.n data").nth(1).get_attribute("value")
    row.locator("td.n a").nth(1).click()
    page.wait_for_url("**/interceptions**")
    assert page.locator("h2 data").get_attribute("value") == requests


def test_marks_lead_into_the_transcript(tab: Tab, site: Site) -> None:
    (path,) = (path for path in paths(site) if path.startswith("/sessions/"))
    page = tab.open(UI + path)
    mark = page.locator(".lanes a").last
    target = mark.get_attribute("href")
    assert target is not None
    mark.locator(".run").click()
    assert page.locator(target.replace("#", "[id='") + "']").count() == 1
    assert page.url.endswith(target)
