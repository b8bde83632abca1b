"""A stream is watched and stopped on the live page, and a limit is made and ended, in a real browser."""

from __future__ import annotations

import threading

from playwright.sync_api import Browser, expect

from tests.support.chromium import Tab, open_tab
from tests.support.dialogue import ASK, BLOCK, MESSAGES, START
from tests.support.upstream import Upstream, chunk, stream_head
from tests.ui.conftest import UI, Site


def test_a_stream_is_watched_and_stopped(site: Site, tab: Tab, browser: Browser, upstream: Upstream) -> None:
    go = threading.Event()
    upstream.enqueue(stream_head(), chunk(START + BLOCK), go)
    client = site.server.connect()
    token = site.tokens["ada@example.com"]
    session = {"User_Agent": "claude-cli/2.1", "X_Claude_Code_Session_Id": "to-stop"}
    client.send("POST", MESSAGES, ASK, X_AIBridge_Token=token, **session)
    assert client.head()[0] == 200
    client.chunk()
    own = open_tab(browser, site.root, token)
    assert "ada@example.com" in own.open(f"{UI}/live").locator("main").inner_text()
    assert own.page.get_by_role("button", name="Stop").count() == 0
    own.page.context.close()
    page = tab.open(f"{UI}/live")
    page.get_by_role("button", name="Stop what ada@example.com runs").click()
    expect(page.get_by_text("Nothing runs now.")).to_be_visible()
    rest, _ = client.chunks()
    assert b"an administrator has stopped this session" in rest
    go.set()
    site.server.disconnect()


def test_a_limit_is_made_and_ended(tab: Tab) -> None:
    page = tab.open(f"{UI}/limits")
    page.get_by_label("Name").fill("everybody")
    page.get_by_label("Scope").fill("everyone")
    page.get_by_label("US$", exact=True).fill("1000")
    page.get_by_role("button", name="Make it").click()
    expect(page.get_by_role("heading", name="everybody")).to_be_visible()
    page.get_by_text("Change or end it").click()
    page.get_by_role("button", name="End it").click()
    expect(page.get_by_text("No limit is set")).to_be_visible()
