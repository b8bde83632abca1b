"""`GET /` and the dashboard say what `aibridge client-config` says, with the address that the asker used."""

from __future__ import annotations

import html

import pytest
from click.testing import CliRunner

from aibridge_flask.cli import aibridge
from aibridge_flask.client_config.guides import CLIENTS
from aibridge_flask.records import database, tokens
from tests.conftest import MakeApp


def told(client: str, root: str) -> str:
    return CliRunner().invoke(aibridge, ["client-config", client, f"--base-url={root}"]).output.rstrip()


@pytest.mark.parametrize(
    ("mode", "root", "shown"),
    [
        ("local", "http://localhost:1234", "ANTHROPIC_AUTH_TOKEN=aib_local"),
        ("token", "https://ai.example.com", "$AIBRIDGE_TOKEN stands for"),
    ],
)
def test_all_three_say_the_same(
    make_app: MakeApp, database_url: str, monkeypatch: pytest.MonkeyPatch, mode: str, root: str, shown: str
) -> None:
    monkeypatch.setenv("AIBRIDGE_AUTH__MODE", mode)
    app = make_app()
    engine = database.connect(database_url)
    database.migrate(engine)
    token = tokens.create(engine, "ann", False, 0)
    asker = app.test_client()
    as_ann = {"X-AIBridge-Token": token}
    index = asker.get("/", base_url=root).get_data(as_text=True)
    page = asker.get("/api/v2/aibridge/ui/tokens", base_url=root, headers=as_ann).get_data(as_text=True)
    dashboard = html.unescape(page)
    for client, title in CLIENTS.items():
        text, _, note = told(client, root).partition("\n\n$AIBRIDGE_TOKEN stands for")
        assert f"\n{text}\n" in index
        where, what = text.removeprefix(f"{title}: ").split("\n\n", 1)
        assert f"<summary>{title}</summary>" in dashboard
        assert where in dashboard
        assert f">{what}</pre>" in dashboard
        assert note in index
    assert shown in index
    assert shown in dashboard
    assert token not in index + dashboard
