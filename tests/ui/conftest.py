"""One bridge with the demonstration's past, hostile texts among it, and one browser for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Browser, sync_playwright

from aibridge_flask.cli.demo.past import write_log
from aibridge_flask.records import database, tokens
from tests.support import hostile
from tests.support.chromium import Tab, launch, open_tab
from tests.support.server import PREFIX, Server
from tests.support.upstream import Upstream
from tests.web.conftest import ann, app, root  # noqa: F401 - fixtures

UI = f"{PREFIX}/ui"


@dataclass(frozen=True)
class Site:
    """A bridge in mode `token`. `tokens` has one of each person by their id."""

    server: Server
    tokens: dict[str, str]

    @property
    def root(self) -> str:
        return self.server.root


@pytest.fixture(scope="session")
def site(shared_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    spool = folder / "records.db-spool"
    spool.mkdir(mode=0o700)
    write_log(spool, 3, datetime.now(UTC))
    hostile.write_log(spool)
    engine = database.connect(f"sqlite:///{folder}/records.db")
    database.migrate(engine)
    people = {user: tokens.create(engine, user, user == "root", 0) for user in ("root", "ada@example.com")}
    provider = {
        "type": "anthropic",
        "base_url": shared_upstream.url,
        "keys": [{"value": "sk-ant-central-0123"}],
    }
    settings = {"auth": {"mode": "token"}, "providers": [provider], "drain_delay": 0}
    server = Server(folder, settings, is_forked=True)
    server.headers = {"X-AIBridge-Token": people["root"]}
    server.wait_ready().wait_until_applied()
    yield Site(server, people)
    server.stop_cleanly()


@pytest.fixture(scope="module")  # while Playwright is open, no other test of this process may use asyncio
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield launch(playwright)


@pytest.fixture
def tab(browser: Browser, site: Site) -> Iterator[Tab]:
    """A tab of the administrator."""
    tab = open_tab(browser, site.root, site.tokens["root"])
    yield tab
    tab.page.context.close()
    tab.assert_clean()
