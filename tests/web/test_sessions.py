"""`/sessions` and `/sessions/{id}`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from aibridge_flask.reading import pages, session_search
from aibridge_flask.records import database as databases
from aibridge_flask.records.sum_tables import audit
from tests.conftest import BOTH_DATABASES
from tests.support.history import History
from tests.support.people import Person, calls, thinks

pytestmark = BOTH_DATABASES
DAY = datetime(2026, 11, 2, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def ids(answer: dict[str, Any]) -> list[str]:
    return [session["id"] for session in answer["sessions"]]


def test_a_session_has_what_its_interceptions_are_together(ann: Person) -> None:
    first = ann.ask("fix it", thinks("how?"), calls("toolu_1", path="x"), session="s 1")
    second = ann.ask(answers="toolu_1", session="s 1")
    third = ann.ask("now test it", session="s 1", model="no such model", status=529)
    (session,) = ann.read("/sessions")["sessions"]
    one = 10 * 3 + 20 * 15 + 30 * 0.3 + 40 * 3.75
    times = [session.pop(name) for name in ("started_at", "ended_at", "last_active_at")]
    assert times[0] < times[1] == times[2]
    assert session == {
        "id": "s 1",
        "initiator": {"id": "ann", "username": "Ann"},
        "client": "Claude Code",
        "metadata": {"username": "Ann"},
        "providers": ["anthropic"],
        "models": ["claude-sonnet-4-5", "no such model"],
        "threads": 2,
        "requests": 3,
        "errors": 1,
        "unpriced_requests": 0,
        "subagents": 0,
        "last_prompt": "now test it",
        "token_usage_summary": {
            "input_tokens": 20,
            "output_tokens": 40,
            "cache_read_input_tokens": 60,
            "cache_write_input_tokens": 80,
        },
        "cost_micros": 2 * one,
    }
    whole = ann.read("/sessions/s%201")
    assert [thread["id"] for thread in whole["threads"]] == [first, third]
    thread = whole["threads"][0]
    actions = thread["agentic_actions"]
    assert [action["interception_id"] for action in actions] == [first, second]
    assert actions[0]["thinking"] == [{"text": "how?", "source": "thinking"}]
    assert [(call["tool"], call["tool_call_id"]) for call in actions[0]["tool_calls"]] == [
        ("Read", "toolu_1")
    ]
    assert (thread["prompt"], thread["cost_micros"], thread["token_usage"]["input_tokens"]) == (
        "fix it",
        2 * one,
        20,
    )
    assert whole["threads"][1]["error_type"] == "overloaded"
    (agent,) = whole["agents"]
    assert (agent["agent_id"], agent["threads"], agent["cost_micros"]) == ("", 2, 2 * one)
    assert agent["token_usage"] == session["token_usage_summary"]


def test_a_running_session_has_no_end_and_no_unknown_price_is_nought(root: Person, history: History) -> None:
    history.add("ann", DAY, client_session_id="runs", model="no such model")
    history.add(
        "ann", DAY + MINUTE, client_session_id="runs", model="other", is_running=True, prompt="and now?"
    )
    (session,) = root.read("/sessions")["sessions"]
    assert (session["ended_at"], session["models"]) == (None, ["no such model", "other"])
    assert session["last_prompt"] == "and now?"
    assert (session["requests"], session["unpriced_requests"]) == (2, 1)
    thread = root.read("/sessions/runs")["threads"][0]
    assert (thread["cost_micros"], thread["ended_at"] is None) == (None, False)


def test_subagents_have_their_own_sums(root: Person, history: History) -> None:
    history.add("ann", DAY, client_session_id="s", prompt="go", tools=(("Task", "toolu_task"),))
    for number in range(2):
        history.add(
            "ann", DAY + MINUTE * (number + 1), client_session_id="s", agent_id="sub", prompt=f"part {number}"
        )
    inner = {"agent_id": "inner", "parent_agent_id": "sub"}
    history.add("ann", DAY + MINUTE * 4, client_session_id="s", **inner)
    history.add("ann", DAY + MINUTE * 5, client_session_id="s", correlating_tool_call_id="toolu_task")
    session = root.read("/sessions/s")
    assert [
        (agent["agent_id"], agent["parent_agent_id"], agent["threads"]) for agent in session["agents"]
    ] == [
        ("", "", 1),
        ("sub", "", 2),
        ("inner", "sub", 1),
    ]
    assert [each["subagents"] for each in root.read("/sessions")["sessions"]] == [session["subagents"]] == [2]
    assert [len(thread["agentic_actions"]) for thread in session["threads"]] == [2, 1, 1, 1]
    assert sum(agent["cost_micros"] for agent in session["agents"]) == session["cost_micros"]


def test_pages_of_sessions_follow_each_other(root: Person, ann: Person, history: History) -> None:
    for number in range(7):
        history.add("ann", DAY + MINUTE * number, client_session_id=f"s{number}")
    history.add("bob", DAY + MINUTE * 5, client_session_id="s3")
    history.add("bob", DAY + MINUTE * 6, client_session_id="s4")

    def pages(person: Person) -> list[list[str]]:
        found, after = [], ""
        while after is not None:
            page = person.read("/sessions", limit=2, after_session_id=after)
            found.append([f"{session['initiator']['id']}/{session['id']}" for session in page["sessions"]])
            after = page["next_after_id"]
        return found

    assert pages(ann) == [["ann/s6", "ann/s5"], ["ann/s4", "ann/s3"], ["ann/s2", "ann/s1"], ["ann/s0"]]
    every = [name for page in pages(root) for name in page]
    assert len(every) == len(set(every)) == 9
    assert ids(ann.read("/sessions", after_session_id="s5", limit=1)) == ["s4"]
    assert ids(ann.read("/sessions", offset=5)) == ["s1", "s0"]
    assert ann.get("/sessions?after_session_id=nobodys").status_code == 400


FOUND = [
    ("initiator:ann", {"a", "b", "c"}),
    ("initiator:me", set()),
    ("session_id:b", {"b"}),
    ("model:gpt-5", {"c"}),
    ("model:gpt-5 model:claude-sonnet-4-5", set()),
    ("client:Codex", {"c", "d"}),
    ("client:Codex initiator:bob", {"d"}),
    ("provider:openai", {"c"}),
    ("group:red", {"d"}),
    ('group:""', {"a", "b", "c"}),
    ("error_type:overloaded", {"b"}),
    ('error_type:""', {"a", "b", "c", "d"}),
    ("kind:title", {"a"}),
    ("kind:main", {"a", "b", "c", "d"}),
    ("tool:Bash", {"b"}),
    ("tool:Bash initiator:ann", {"b"}),
    ("text:fox", {"a"}),
    ("cost_above:0.0001", {"a", "b", "c"}),
    ("cost_above:0.0001 client:Codex", {"c"}),
    ("started_after:2026-11-02T01:30:00Z", {"b", "c", "d"}),
    ("started_before:2026-11-02T01:00:00Z", {"a", "b"}),
    ("started_after:2026-11-02T00:01:00Z started_before:2026-11-02T02:00:00Z", {"a"}),
    ("started_after:2026-11-02T00:30:00Z started_before:2026-11-02T01:30:00Z model:gpt-5", set()),
    ("started_after:2026-11-02T01:30:00Z error_type:overloaded", {"b"}),
    ('started_after:2026-11-02T00:00:30Z error_type:"" client:"Claude Code"', {"a"}),
    ("started_after:2026-11-02T02:30:00Z started_before:2026-11-02T03:00:30Z client:Codex", {"c", "d"}),
    ("started_after:2026-11-02T03:00:01Z client:Codex", set()),
]


@pytest.fixture
def four(history: History) -> None:
    history.add("ann", DAY, client_session_id="a", prompt="the brown fox")
    history.add("ann", DAY + MINUTE, client_session_id="a", kind="title")
    history.add("ann", DAY, client_session_id="b")
    history.add(
        "ann", DAY + 120 * MINUTE, client_session_id="b", error_type="overloaded", tools=(("Bash", "t1"),)
    )
    history.add(
        "ann", DAY + 180 * MINUTE, client_session_id="c", model="gpt-5", provider="openai", client="Codex"
    )
    history.add(
        "bob", DAY + 180 * MINUTE, client_session_id="d", groups=("red",), client="Codex", is_running=True
    )


def test_a_session_is_found_by_what_one_of_its_interceptions_is(
    root: Person, ann: Person, four: None
) -> None:
    for q, expected in FOUND:
        for who, visible in ((root, expected), (ann, expected - {"d"})):
            if q != "initiator:me":
                answer = who.read("/sessions", q=q)
                assert (set(ids(answer)), answer["count"]) == (visible, len(visible)), (who.name, q)
    assert ids(root.read("/sessions", q="initiator:me")) == []


def test_of_many_sessions_the_last_active_ones_are_found(
    root: Person, four: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {q: ids(root.read("/sessions", q=q)) for q, _ in FOUND}
    for module, name in ((session_search, "FEW_OF_ALL"), (session_search, "MAX_COUNT"), (pages, "MAX_COUNT")):
        monkeypatch.setattr(module, name, 0)
    for q, found in few.items():
        answer = root.read("/sessions", q=q)
        assert ids(answer) == found, q
        assert ids(root.read("/sessions", q=q, offset=1)) == found[1:], q
        assert ids(root.read("/sessions", q=q, offset=5)) == [], q
        assert answer.get("count_capped", False) == bool(found), q


def test_threads_are_paged_both_ways(root: Person, history: History) -> None:
    threads = [history.add("ann", DAY + MINUTE * n, client_session_id="s", prompt=str(n)) for n in range(7)]

    def page(**parameters: object) -> tuple[list[int], str | None, str | None]:
        answer = root.read("/sessions/s", **parameters)
        found = [threads.index(thread["id"]) for thread in answer["threads"]]
        return found, answer["next_before_id"], answer["next_after_id"]

    assert page() == ([0, 1, 2, 3, 4, 5, 6], None, None)
    assert page(limit=3) == ([0, 1, 2], None, threads[2])
    assert page(limit=3, after_id=threads[2]) == ([3, 4, 5], threads[3], threads[5])
    assert page(limit=3, after_id=threads[5]) == ([6], threads[6], None)
    assert page(limit=3, before_id=threads[6]) == ([3, 4, 5], threads[3], threads[5])
    assert page(limit=3, before_id=threads[1]) == ([0], None, threads[0])
    assert page(after_id=threads[6]) == ([], None, None)
    for parameters in (
        "after_id=x",
        "before_id=x",
        f"after_id={threads[1]}&before_id={threads[2]}",
        "limit=201",
    ):
        assert root.get(f"/sessions/s?{parameters}").status_code == 400


def test_a_session_too_large_for_a_page_ends_early_in_both_directions(root: Person, history: History) -> None:
    long = "é" * (1 << 20)
    threads = [history.add("ann", DAY + MINUTE * n, client_session_id="s", prompt=long) for n in range(6)]
    first = root.read("/sessions/s")
    assert ([thread["id"] for thread in first["threads"]], first["next_after_id"]) == (
        threads[:3],
        threads[2],
    )
    last = root.read("/sessions/s", before_id=threads[5])
    assert ([thread["id"] for thread in last["threads"]], last["next_before_id"]) == (
        threads[2:5],
        threads[2],
    )


@pytest.mark.parametrize(
    "id", ["a/b", "/a", "a//b", "a\nb", "\n", "a b?c#d", "%2e%2e", "ü", "a~1", ";x", "a/"]
)
def test_any_id_can_be_asked_for(root: Person, history: History, id: str) -> None:
    history.add("ann", DAY, client_session_id=id)
    assert root.read(f"/sessions/{quote(id, safe='')}")["id"] == id
    assert ids(root.read("/sessions", q=f'session_id:"{id}"')) == [id]


def audit_rows(url: str) -> list[tuple[str, str, str, Any]]:
    c = audit.c
    with databases.connect(url).connect() as connection:
        rows = connection.execute(sa.select(c.actor_id, c.action, c.target, c.after).order_by(c.at))
        return [tuple(row) for row in rows]


def test_of_one_id_the_newest_or_the_initiators_is_shown_and_others_never(
    ann: Person, bob: Person, root: Person, history: History, database_url: str
) -> None:
    history.add("ann", DAY, client_session_id="s", prompt="anns")
    history.add("bob", DAY + MINUTE, client_session_id="s", prompt="bobs")
    assert [person.read("/sessions/s")["initiator"]["id"] for person in (ann, bob, root)] == [
        "ann",
        "bob",
        "bob",
    ]
    assert root.read("/sessions/s", initiator="ann")["last_prompt"] == "anns"
    assert ann.get("/sessions/s?initiator=bob").status_code == 404
    assert root.get("/sessions/s?initiator=carl").status_code == 404
    assert root.get("/sessions/none").status_code == 404
    assert audit_rows(database_url) == [
        ("root", "session.read", "s", {"initiator": "bob"}),
        ("root", "session.read", "s", {"initiator": "ann"}),
    ]
