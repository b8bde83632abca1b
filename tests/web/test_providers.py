"""`/providers`, `/providers/mcp`, `/me`."""

from __future__ import annotations

from typing import Any

from tests.conftest import MakeApp
from tests.support.mcp import ScriptedMcp
from tests.support.people import Person, app_for_people
from tests.support.server import wait_until
from tests.support.upstream import Upstream, http_response

BREAKER = {"failure_threshold": 1, "timeout": 60}


def two_keys(upstream: Upstream, **settings: object) -> dict[str, object]:
    keys = [{"value": "sk-ant-first-0123456789"}, {"value": "sk-ant-second-0123456789"}]
    return {"type": "anthropic", "base_url": upstream.url, "keys": keys, "max_retries": 0, **settings}


def test_each_provider_has_its_keys_and_breakers(make_app: MakeApp, upstream: Upstream) -> None:
    providers = [
        two_keys(upstream, circuit_breaker=BREAKER),
        {"type": "openai", "base_url": upstream.url, "enabled": False},
    ]
    app = app_for_people(make_app, providers=providers)
    root = Person(app, upstream, "root")
    upstream.enqueue(http_response(429, b"{}", "Retry-After: 30"))
    root.ask("hi")
    root.ask("hi", status=503)
    answer = root.read("/providers")
    assert [(each["name"], each["type"], each["status"]) for each in answer["results"]] == [
        ("anthropic", "anthropic", "enabled"),
        ("openai", "openai", "disabled"),
    ]
    keys = answer["results"][0]["keys"]
    assert [key["hint"] for key in keys["valid"]] == ["sk-a...6789"]
    assert [(key["models"], key["until"] > "2020") for key in keys["temporary"]] == [
        (["claude-sonnet-4-5"], True)
    ]
    (breaker,) = answer["results"][0]["breakers"]
    assert (breaker["endpoint"], breaker["model"], breaker["state"]) == (
        "/v1/messages",
        "claude-sonnet-4-5",
        "open",
    )
    assert "sk-ant-first-0123456789" not in root.get("/providers").text
    assert root.read("/providers", q="provider_name:openai")["count"] == 1
    assert root.read("/providers", limit=1, offset=1)["results"] == answer["results"][1:]
    assert root.get("/providers?q=model:x").status_code == 400


def test_each_mcp_server_has_its_tools(make_app: MakeApp, upstream: Upstream, docs: ScriptedMcp) -> None:
    servers = [
        {"name": "docs", "url": docs.url},
        {"name": "gone", "url": "http://127.0.0.1:9/mcp"},
    ]
    app = app_for_people(make_app, mcp_servers=servers)
    root = Person(app, upstream, "root")

    def listed() -> dict[str, Any]:
        return {server["name"]: server for server in root.read("/providers/mcp")["results"]}

    wait_until(lambda: {server["status"] for server in listed().values()} == {"up", "down"})
    found = listed()
    assert [tool["name"] for tool in found["docs"]["tools"]] == ["add"]
    assert found["docs"]["url"] == docs.url
    assert (found["gone"]["status"], found["gone"]["tools"]) == ("down", [])


def test_me_is_who_asks(make_app: MakeApp, upstream: Upstream) -> None:
    app = app_for_people(make_app)
    assert Person(app, upstream, "ann").read("/me") == {
        "id": "ann",
        "username": "Ann",
        "metadata": {"username": "Ann"},
        "groups": ["blue", "red"],
        "admin": False,
        "limits": [],
    }
    assert Person(app, upstream, "root").read("/me")["admin"]
