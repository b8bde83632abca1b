"""Limits as their users see them: who is let in, what is counted, how a refusal looks."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tests.conftest import BOTH_DATABASES, MakeApp
from tests.support import bedrock
from tests.support.people import CHAT, MESSAGES, MODEL, Person, answer, app_for_people
from tests.support.server import PREFIX
from tests.support.upstream import Upstream, http_response

pytestmark = BOTH_DATABASES
RESPONSES = "/openai/v1/responses"
PRICES = {"claude-*": {"input": 1000.0, "output": 1000.0}, "gpt-*": {"input": 1000.0, "output": 1000.0}}
"""Of an answer with 100 tokens: ten cents."""
CLAUDE_CODE = {"User-Agent": "claude-cli/2.1"}
CODEX = {"User-Agent": "codex_cli_rs/0.1"}


class People:
    """An application with limits, and those who ask it."""

    def __init__(self, app: Flask, upstream: Upstream) -> None:
        self.client, self.upstream = app.test_client(), upstream
        self.ann, self.bob, self.root = (Person(app, upstream, name) for name in ("ann", "bob", "root"))

    def ask(self, who: str = "ann", path: str = MESSAGES, model: str = MODEL, **headers: str) -> TestResponse:
        """Asks for at most 50 tokens; the answer has 100 tokens in all. Returns the response."""
        body = {
            "model": model,
            "max_tokens": 50,
            "messages": [{"role": "user", "content": "hi"}],
            "input": "hi",
        }
        self.upstream.enqueue(http_response(200, answer((), model, path)))
        response = self.client.post(
            PREFIX + path, data=json.dumps(body), headers={"X-Who": who, **headers}, buffered=True
        )
        if response.status_code != 200:
            self.upstream.reset()
        return response

    def used(self, name: str = "l") -> dict[str, tuple[int, int]]:
        (limit,) = (each for each in self.root.read("/limits")["results"] if each["name"] == name)
        return {each["of"]: (each["spent"], each["held"]) for each in limit["used"]}

    def record(self, response: TestResponse) -> dict[str, Any]:
        id = response.headers["X-AIBridge-Interception-Id"]
        record: dict[str, Any] = self.root.read(f"/interceptions/{id}")
        return record


def limit(scope: object = "everyone", per: str = "day", **members: object) -> dict[str, object]:
    return {"name": "l", "scope": scope, **({"per": per} if per else {}), **members}


@pytest.fixture
def people(make_app: MakeApp, upstream: Upstream) -> Any:
    def make(*limits: dict[str, object], **settings: object) -> People:
        app = app_for_people(make_app, limit=list(limits), prices=PRICES, **settings)
        return People(app, upstream)

    return make


def test_a_used_up_limit_refuses_and_others_are_not_concerned(people: Any) -> None:
    them = people(limit({"actor": "ann"}, usd=0.25), limits={"contact": "ops@example.com"})
    assert them.ask().status_code == 200
    assert them.used() == {"ann": (100_000, 0)}
    assert them.ask().status_code == 200
    refused = them.ask(**CLAUDE_CODE)
    assert refused.status_code == 429
    assert refused.json["error"]["type"] == "billing_error"
    assert refused.json["error"]["message"].startswith('limit "l" is used up (US$0.25 a day): it resets in ')
    assert refused.json["error"]["message"].endswith(" UTC; ask ops@example.com")
    assert refused.headers["x-should-retry"] == "false"
    assert 0 < int(refused.headers["Retry-After"]) <= 86400
    assert them.ask("bob").status_code == 200
    assert them.used() == {"ann": (200_000, 0)}
    record = them.record(refused)
    assert (record["error_type"], record["attempts"], record["status_code"]) == ("limit", 0, 429)
    assert record["limit_id"] == them.root.read("/limits")["results"][0]["id"]


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_codex_is_told_in_its_own_words(people: Any, path: str) -> None:
    them = people(limit(requests=0))
    refused = them.ask(path=path, model="gpt-5", **CODEX)
    assert refused.status_code == 429
    error = refused.json["error"]
    assert (error["type"], error["code"]) == ("usage_limit_reached", "insufficient_quota")
    assert error["resets_at"] % 86400 == 0
    assert refused.headers["x-codex-promo-message"] == error["message"]


@pytest.mark.parametrize(
    ("scope", "accounts"),
    [
        ("everyone", {"everyone": 3}),
        ({"actor": "*"}, {"ann": 2, "bob": 1}),
        ({"group": "red"}, {"ann": 2, "bob": 1}),
        ({"group": "red", "shared": True}, {"red": 3}),
        ({"group": "*", "shared": True}, {"red": 3, "blue": 2}),
        ({"session": "*"}, {"s1": 2, "s2": 1}),
        ({"session": "s1"}, {"s1": 2}),
        ({"agent": "*"}, {"s1": 2, "s2": 1}),
        ({"token": "*"}, {}),
    ],
)
def test_whom_a_limit_counts_together(people: Any, scope: object, accounts: dict[str, int]) -> None:
    them = people(limit(scope, requests=100))
    for who, session in (("ann", "s1"), ("ann", "s1"), ("bob", "s2")):
        assert them.ask(who, **CLAUDE_CODE, **{"X-Claude-Code-Session-Id": session}).status_code == 200
    assert them.used() == {of: (count, 0) for of, count in accounts.items()}


@pytest.mark.parametrize(
    ("members", "count"),
    [
        ({"tokens": 9}, 200),
        ({"requests": 9}, 2),
        ({"usd": 9}, 200_000),
        ({"requests": 9, "models": ["claude-*"]}, 1),
        ({"requests": 9, "providers": ["openai"]}, 1),
        ({"requests": 9, "clients": ["Codex"]}, 1),
        ({"requests": 9, "credential": "any"}, 3),
        ({"requests": 9, "until": "2020-01-01T00:00:00Z"}, 0),
    ],
)
def test_what_a_limit_counts(people: Any, members: dict[str, object], count: int) -> None:
    them = people(limit(mode="shadow", **members))
    them.ask()
    them.ask(path=CHAT, model="gpt-5", **CODEX)
    them.ask(**{"X-Api-Key": "sk-ant-own-0123456789"})
    expected = {"everyone": (count, 0)} if count else {}
    if "models" not in members and "clients" not in members and members.get("tokens"):
        expected = {"everyone": (110, 0)}
    if members.get("usd"):
        expected = {"everyone": (110_000, 0)}
    assert them.used() == expected


def test_a_limit_that_is_not_enforced_lets_all_in(people: Any) -> None:
    them = people(limit(requests=1, mode="shadow"), limit(requests=1, mode="warn") | {"name": "w"})
    assert "X-AIBridge-Limit" in them.ask().headers  # the first is the last one
    over = them.ask()
    assert over.status_code == 200
    assert over.headers["X-AIBridge-Limit"].startswith("name=w;used=1.00;resets=")
    assert them.record(over)["limit_id"]
    assert them.used("w") == {"everyone": (2, 0)}


def test_a_cheaper_model_may_still_be_used(people: Any) -> None:
    them = people(limit(requests=1, instead=["claude-haiku-*"]))
    assert them.ask().status_code == 200
    assert them.ask().status_code == 429
    assert them.ask(model="claude-haiku-4-5").status_code == 200
    assert them.used() == {"everyone": (2, 0)}


def test_a_rule_names_the_models_that_are_allowed(people: Any) -> None:
    them = people(rule=[{"scope": {"group": "blue"}, "models": ["claude-haiku-*"]}])
    assert them.ask("bob").status_code == 200
    assert them.ask(model="claude-haiku-4-5").status_code == 200
    refused = them.ask(**CLAUDE_CODE)
    assert (refused.status_code, refused.json["error"]["type"]) == (429, "billing_error")
    assert "use one of claude-haiku-*" in refused.json["error"]["message"]
    assert them.record(refused)["error_type"] == "policy"
    assert them.ask().status_code == 403
    assert them.ask(path=CHAT, model="gpt-5").json["error"]["code"] == "model_not_allowed"


def test_a_model_without_a_price(people: Any) -> None:
    them = people(limit(usd=1), limits={"unpriced": "refuse"})
    refused = them.ask(model="claude_unheard-of", **CLAUDE_CODE)
    assert (refused.status_code, them.record(refused)["error_type"]) == (429, "policy")
    assert them.ask().status_code == 200


def test_limits_are_made_changed_and_ended(people: Any) -> None:
    them = people()
    them.ask()
    made = them.root.change(
        "POST", "/limits", json={"name": "new", "scope": "everyone", "per": "month", "usd": 0.15}
    )
    assert made.status_code == 201
    assert made.json["used"][0] | {"expected": 0, "resets_at": ""} == {
        "of": "everyone", "spent": 100_000, "held": 0, "expected": 0, "resets_at": "",
    }  # fmt: skip
    assert them.ask().status_code == 429
    path = f"/limits/{made.json['id']}"
    assert them.root.change("PATCH", path, json={"tokens": 1000}).json["tokens"] == 1000
    assert them.used("new") == {"everyone": (100, 0)}
    assert them.ask().status_code == 200
    assert them.root.change("PATCH", path, json={"per": "fortnight"}).status_code == 400
    assert (
        them.root.change(
            "POST", "/limits", json={"name": "new", "scope": "everyone", "per": "day", "usd": 1}
        ).status_code
        == 409
    )
    assert them.root.change("DELETE", path).status_code == 204
    assert them.root.change("DELETE", path).status_code == 404
    assert them.root.read("/limits") == {"count": 0, "results": []}
    actions = [row["action"] for row in them.root.read("/audit")["results"]]
    assert actions == ["limit.remove", "limit.change", "limit.create"]


def test_a_limit_of_the_file_is_changed_there(people: Any) -> None:
    them = people(limit(requests=5))
    (listed,) = them.root.read("/limits")["results"]
    assert listed["source"] == "file"
    assert them.root.change("PATCH", f"/limits/{listed['id']}", json={"requests": 9}).status_code == 409
    assert them.root.change("DELETE", f"/limits/{listed['id']}").status_code == 409
    assert them.ann.change("POST", "/limits", json={"name": "x"}).status_code == 403


def test_each_person_sees_the_limits_it_is_under(people: Any) -> None:
    them = people(
        limit({"actor": "ann"}, requests=5),
        limit({"group": "red", "shared": True}, requests=9) | {"name": "r"},
    )
    them.ask()
    assert [each["name"] for each in them.bob.read("/limits")["results"]] == ["r"]
    assert [each["name"] for each in them.ann.read("/me")["limits"]] == ["l", "r"]
    assert [each["name"] for each in them.root.read("/limits/effective", actor="ann")["results"]] == [
        "l",
        "r",
    ]
    assert them.bob.get("/limits/effective?actor=ann").status_code == 403


def test_lists_of_models_have_only_those_that_are_allowed(people: Any) -> None:
    them = people(rule=[{"scope": {"group": "blue"}, "models": ["claude-haiku-*"]}])
    models = [{"id": "claude-haiku-4-5"}, {"id": "claude-opus-4-5"}]
    whole = {"data": models, "has_more": False, "first_id": "claude-haiku-4-5", "last_id": "claude-opus-4-5"}
    for who, ids in (("ann", ["claude-haiku-4-5"]), ("bob", ["claude-haiku-4-5", "claude-opus-4-5"])):
        them.upstream.enqueue(http_response(200, json.dumps(whole).encode()))
        listed = them.client.get(f"{PREFIX}/anthropic/v1/models", headers={"X-Who": who}).json
        assert [each["id"] for each in listed["data"]] == ids
        assert listed["last_id"] == ids[-1]


def test_on_bedrock_the_model_counts_that_is_called(people: Any, upstream: Upstream) -> None:
    """Whatever name a client sends, the configured models are called."""
    sonnet = limit(requests=9) | {"models": ["claude-sonnet-4-5*"]}
    rule = {"scope": {"group": "blue"}, "models": ["claude-haiku-*", "gpt-5-mini"]}
    them = people(sonnet, rule=[rule], providers=[bedrock.settings(upstream.url)])
    ask = partial(them.ask, path=bedrock.MESSAGES)
    assert [ask(model=model).status_code for model in ("gpt-5-mini", bedrock.MODEL)] == [403, 403]
    assert [ask(model=model).status_code for model in ("claude-haiku-x", bedrock.SMALL)] == [200, 200]
    assert them.root.read("/limits")["results"][0]["used"] == []
    assert ask("bob", model="gpt-5-mini").status_code == 200
    assert them.used() == {"everyone": (1, 0)}
    listed = them.client.get(f"{PREFIX}/bedrock/v1/models", headers={"X-Who": "ann"}).json
    assert [each["id"] for each in listed["data"]] == [bedrock.SMALL]


def test_sliding_limits_make_room_again(people: Any) -> None:
    """The answer says when, and clients wait so long by themselves."""
    them = people(limit(per="minute", requests=2))
    assert [them.ask().status_code for _ in range(3)] == [200, 200, 429]
    refused = them.ask()
    assert refused.json["error"]["type"] == "rate_limit_error"
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    assert "x-should-retry" not in refused.headers


def test_metrics_and_readiness_tell_of_limits(people: Any) -> None:
    them = people(limit(requests=2), metrics={"enabled": True})
    for _ in range(3):
        them.ask()
    page = them.client.get(f"{PREFIX}/metrics").text
    assert 'aibridge_limit_used_ratio{limit="l"} 1.0' in page
    assert 'aibridge_limit_refusals_total{limit="l",mode="enforce"} 1.0' in page
    assert them.client.get(f"{PREFIX}/readyz").json["limits"] == "ok"
