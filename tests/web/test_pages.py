"""Pages of interceptions: their order, their bounds, what stands in them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from aibridge_flask.reading import interceptions as lists
from aibridge_flask.reading import narrowing, pages
from aibridge_flask.records import database as databases
from aibridge_flask.records.events import now
from aibridge_flask.records.recorder import Recorder
from aibridge_flask.records.tables import interceptions, model_thoughts, user_prompts
from tests.conftest import BOTH_DATABASES
from tests.support.history import History
from tests.support.people import CHAT, Person, calls

pytestmark = BOTH_DATABASES
MB = 1 << 20


def ids(listing: dict[str, Any]) -> list[str]:
    return [row["id"] for row in listing["results"]]


def all_pages(person: Person, **parameters: object) -> list[dict[str, Any]]:
    pages = [person.read("/interceptions", **parameters)]
    while pages[-1]["next_after_id"]:
        pages.append(person.read("/interceptions", **parameters, after_id=pages[-1]["next_after_id"]))
    return pages


def add_rows(url: str, count: int, prompt: str = "", thought: str = "") -> None:
    """Adds interceptions of the actor `many`, one a second, with a prompt and a thought."""
    engine = databases.connect(url)
    begin = now() - timedelta(days=1)
    common = {"initiator_id": "many", "metadata": {}, "streaming": False}
    rows = [
        {"id": f"many-{n:08}", "started_at": begin + timedelta(seconds=n), **common} for n in range(count)
    ]
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(sa.insert(interceptions), rows)
        for table, text in ((user_prompts, {"prompt": prompt}), (model_thoughts, {"content": thought})):
            places = {"turn": 0, "position": 0} if table is model_thoughts else {}
            if any(text.values()):
                parts = [
                    {"interception_id": row["id"], "created_at": begin, **text, **places} for row in rows
                ]
                for part in parts:
                    connection.execute(sa.insert(table), part)


def test_pages_follow_each_other_to_the_end(ann: Person) -> None:
    newest_first = [ann.ask(str(number)) for number in range(5)][::-1]
    pages = all_pages(ann, limit=2)
    assert [ids(page) for page in pages] == [newest_first[:2], newest_first[2:4], newest_first[4:]]
    assert [page["next_after_id"] for page in pages] == [newest_first[1], newest_first[3], None]
    assert all_pages(ann, limit=5)[-1]["next_after_id"] is None


def test_a_count_is_exact_up_to_ten_thousand(root: Person, database_url: str) -> None:
    add_rows(database_url, 10_000)
    assert "count_capped" not in root.read("/interceptions")
    assert root.read("/interceptions")["count"] == 10_000
    root.ask()
    page = root.read("/interceptions", offset=9_999)
    assert (page["count"], page["count_capped"], len(page["results"])) == (10_000, True, 2)
    assert root.read("/interceptions", q="initiator:root")["count"] == 1


@pytest.mark.parametrize(("field", "value"), [("offset", 100_001), ("limit", 1001), ("limit", "ten")])
def test_what_is_out_of_bounds_is_400(root: Person, field: str, value: object) -> None:
    response = root.get("/interceptions", query_string={field: value})
    assert response.status_code == 400
    assert [error["field"] for error in response.get_json()["validations"]] == [field]


def test_a_page_ends_early_at_8_mib(root: Person, database_url: str) -> None:
    add_rows(database_url, 12, prompt="é" * (MB // 2), thought="x" * 100)
    pages = all_pages(root)
    assert [len(page["results"]) for page in pages] == [7, 5]
    assert [id for page in pages for id in ids(page)] == [f"many-{n:08}" for n in reversed(range(12))]
    assert len(root.get("/interceptions").get_data()) <= 8 * MB


def test_a_long_text_is_cut_in_lists_and_whole_by_itself(root: Person, database_url: str) -> None:
    add_rows(database_url, 1, prompt="€" * (2 * MB), thought="short")
    (row,) = root.read("/interceptions")["results"]
    assert row["user_prompts"][0]["prompt"] == "€" * (4 * MB // 3)
    assert row["user_prompts"][0]["truncated"]
    assert "truncated" not in row["model_thoughts"][0]
    whole = root.read(f"/interceptions/{row['id']}")
    assert whole["user_prompts"][0]["prompt"] == "€" * (2 * MB)
    assert "truncated" not in whole["user_prompts"][0]


def test_an_interception_that_would_not_fit_a_page_alone_is_cut_further(
    root: Person, database_url: str
) -> None:
    add_rows(database_url, 2, prompt="\x01" * (3 * MB), thought="x" * (4 * MB))
    for page in all_pages(root):
        assert len(page["results"]) == 1
        assert page["results"][0]["user_prompts"][0]["truncated"]
    assert len(root.get("/interceptions").get_data()) <= 8 * MB


def test_each_key_of_the_search_finds_what_it_names(ann: Person, root: Person) -> None:
    plain = ann.ask("the brown fox")
    tool = ann.ask("something else", calls("toolu_9", "Bash"), session="s 1")
    chat = ann.ask(path=CHAT, model="gpt-5")
    failed = ann.ask("fox", status=529)
    title = root.ask("first")

    def found(q: str) -> set[str]:
        return set(ids(root.read("/interceptions", q=q)))

    assert found("initiator:ann") == {plain, tool, chat, failed}
    assert found("initiator:me") == {title}
    assert found("provider:openai") == found("provider_name:openai") == found("model:gpt-5") == {chat}
    assert found('client:"Claude Code"') == found('session_id:"s 1"') == found("tool:Bash") == {tool}
    assert found("error_type:overloaded") == {failed}
    assert found('error_type:"" initiator:ann') == {plain, tool, chat}
    assert found("kind:main model:gpt-5") == {chat}
    assert found("kind:title") == set()
    assert found("text:fox") == {plain, failed}
    assert found('text:"fox brown"') == {plain}
    assert found("cost_above:0.0001 tool:Bash") == {tool}
    assert found("cost_above:1") == set()
    assert found("started_after:2020-01-01T00:00:00Z started_before:2021-01-01T00:00:00Z") == set()


@pytest.mark.parametrize("value", ["x", "1e", "nan", '""', "--1"])
def test_a_cost_is_a_number(root: Person, value: str) -> None:
    response = root.get("/interceptions", query_string={"q": f"cost_above:{value}"})
    assert response.status_code == 400


@pytest.mark.parametrize("value", ["-1", "1e400", "0", "inf", "1e999999999"])
def test_any_number_is_a_cost(root: Person, value: str) -> None:
    assert root.get("/interceptions", query_string={"q": f"cost_above:{value}"}).status_code in (200, 400)


@pytest.mark.parametrize("dense", [0, narrowing.DENSE], ids=["days", "hours"])
def test_a_search_counts_and_finds_the_same_in_the_sums_as_in_all_rows(
    app: Flask, root: Person, monkeypatch: pytest.MonkeyPatch, dense: int
) -> None:
    """Few matches, far apart in time; some still run. `kind` is a key for which all rows are read."""
    monkeypatch.setattr(narrowing, "DENSE", dense)
    recorder = Recorder(app.config["AIBRIDGE_SETTINGS"])
    history, begin = History(recorder), datetime(2026, 11, 2, 0, 30, tzinfo=UTC)
    for number in range(40):
        model = "rare" if number % 9 == 0 else "common"
        at = begin + timedelta(hours=5 * number, minutes=number)
        history.add("ann", at, model=model, is_running=number == 36, groups=("red",))
    recorder.close()
    for q in (
        "model:rare",
        "model:common",
        "model:none",
        "group:red",
        'group:""',
        "model:rare initiator:ann",
    ):
        for extra in (
            "",
            " started_after:2026-11-04T00:00:00Z",
            " started_after:2026-11-03T10:00:00Z",
            " started_before:2026-11-05T00:20:00Z",
        ):
            sums, rows = (all_pages(root, limit=2, q=text) for text in (q + extra, f"{q}{extra} kind:main"))
            assert [ids(page) for page in sums] == [ids(page) for page in rows], q + extra
            assert {page["count"] for page in sums} == {page["count"] for page in rows}, q + extra
    assert root.read("/interceptions", q="model:rare")["count"] == 5
    common = ids(root.read("/interceptions", q="model:common"))
    for offset in range(len(common) + 1):
        page = root.read("/interceptions", q="model:common", offset=offset, limit=3)
        assert (page["count"], ids(page)) == (len(common), common[offset : offset + 3])


@pytest.mark.parametrize(
    "q",
    [
        *("tool:Bash", "kind:title", "kind:main", "cost_above:0.0001", "tool:Bash group:red"),
        *("text:build", "text:build started_after:2026-11-02T00:03:00Z", "text:build group:red"),
    ],
)
def test_many_matches_are_found_in_the_same_order_as_few(
    root: Person, history: History, monkeypatch: pytest.MonkeyPatch, q: str
) -> None:
    begin = datetime(2026, 11, 2, tzinfo=UTC)
    for number in range(30):
        of_kind = {"kind": "title"} if number % 3 else {"groups": ("red",)}
        tools = (("Bash", f"a{number}"), ("Bash", f"b{number}")) if number % 2 else ()
        prompt = "Why does the build fail?" if number % 4 else ""
        at = begin + timedelta(minutes=number * 37 % 30)
        history.add("ann", at, prompt=prompt, tools=tools, **of_kind)
    few = all_pages(root, limit=4, q=q)
    for name in ("FEW", "FEW_OF_ALL", "FEW_TEXTS"):
        monkeypatch.setattr(lists, name, 4)
    monkeypatch.setattr(pages, "MAX_COUNT", 4)
    many = all_pages(root, limit=4, q=q)
    assert {page["count"] for page in few} == {sum(len(page["results"]) for page in few)}
    assert [ids(page) for page in many] == [ids(page) for page in few]
    assert {(page["count"], page["count_capped"]) for page in many} == {(4, True)}


def test_what_has_expired_is_not_counted(app: Flask, root: Person, database_url: str) -> None:
    """Sums stay."""
    recorder = Recorder(app.config["AIBRIDGE_SETTINGS"])
    begin = datetime(2026, 11, 2, 0, 30, tzinfo=UTC)
    history = History(recorder)
    old = [
        history.add("ann", begin + timedelta(hours=hour // 2, minutes=hour), model="old") for hour in range(8)
    ]
    recorder.close()
    assert root.read("/interceptions", q="model:old")["count"] == 8
    engine = databases.connect(database_url)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(sa.delete(interceptions).where(interceptions.c.id.in_(old[:3])))
    page = root.read("/interceptions", q="model:old")
    assert (page["count"], ids(page)) == (5, old[:2:-1])
    assert root.read("/usage", q="model:old")["totals"]["requests"] == 8
