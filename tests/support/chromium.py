"""Debian's Chromium, driven by Playwright, whose own browsers are not needed."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field

from playwright.sync_api import Browser, BrowserContext, Page, Playwright, Request

from tests.support.missing import missing

_ARGUMENTS = ("--no-sandbox", "--disable-dev-shm-usage")
WIDE, PHONE = (1280, 900), (390, 844)


def find_chromium() -> str:
    """Returns the path of Chromium."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((path for name in names if (path := shutil.which(name))), "")
    return path or missing("Chromium", "chromium")


def launch(playwright: Playwright) -> Browser:
    """It ends with Playwright, which waits half a minute at most; its `close` would wait without limit."""
    return playwright.chromium.launch(executable_path=find_chromium(), args=list(_ARGUMENTS))


@dataclass
class Tab:
    """A page with what went wrong in it. `foreign` are requests to anywhere but `root`."""

    page: Page
    root: str
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def open(self, path: str) -> Page:
        response = self.page.goto(self.root + path)
        assert response is not None
        assert response.status == 200, path
        return self.page

    def assert_clean(self) -> None:
        assert (self.errors, self.foreign) == ([], [])


def open_tab(
    browser: Browser, root: str, token: str = "", theme: str = "light", size: tuple[int, int] = WIDE
) -> Tab:
    """A tab of its own browser context. With a token each request carries it."""
    width, height = size
    context: BrowserContext = browser.new_context(
        color_scheme=theme,
        viewport={"width": width, "height": height},
        extra_http_headers={"X-AIBridge-Token": token} if token else {},
    )
    context.set_default_timeout(10_000)
    tab = Tab(context.new_page(), root)

    def note_request(request: Request) -> None:
        if not request.url.startswith((root, "data:")):
            tab.foreign.append(request.url)

    tab.page.on("request", note_request)
    tab.page.on(
        "console", lambda message: tab.errors.append(message.text) if message.type == "error" else None
    )
    tab.page.on("pageerror", lambda error: tab.errors.append(str(error)))
    tab.page.on("dialog", lambda dialog: tab.errors.append(f"dialog: {dialog.message}"))
    return tab
