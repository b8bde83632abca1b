"""`/usage` and `/tools`: sums by the hour say what the interceptions themselves do."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aibridge_flask.model import Usage
from tests.conftest import BOTH_DATABASES
from tests.support.history import History
from tests.support.people import Person

pytestmark = BOTH_DATABASES
DAY = datetime(2026, 11, 2, tzinfo=UTC)
KEYS = (
    *("hour", "day", "month", "initiator", "group", "model", "client", "provider", "provider_name"),
    *("credential_kind", "error_type", "session"),
)
FOR_ROWS = "kind:main"
"""A key that no sum has."""


@pytest.fixture
def past(history: History) -> History:
    """Two people over three days, with what is unpriced, failed, the user's own, still running."""
    for number in range(8):
        at = DAY + timedelta(hours=7 * number, minutes=11 * number)
        history.add("ann", at, client_session_id=f"s{number % 3}", groups=("blue", "red"), seconds=1 + number)
    history.add("bob", DAY + timedelta(hours=7), client_session_id="s1", groups=("red",), client="Codex")
    history.add("bob", DAY + timedelta(hours=9), credential_kind="byok", usage=Usage(1000, 2000))
    history.add("bob", DAY + timedelta(hours=9, minutes=59), model="no such model", error_type="overloaded")
    history.add("bob", DAY + timedelta(hours=9), is_running=True)
    return history


def by(answer: dict[str, Any], *keys: str) -> dict[Any, dict[str, Any]]:
    results = {tuple(row[key] for key in keys): row for row in answer["results"]}
    return {key[0] if len(keys) == 1 else key: row for key, row in results.items()}


@pytest.mark.parametrize("key", KEYS)
def test_sums_say_what_the_rows_say(root: Person, past: History, key: str) -> None:
    sums, rows = (root.read("/usage", group_by=key, q=q) for q in ("", FOR_ROWS))
    assert sums["totals"] == rows["totals"]
    assert by(sums, key) == by(rows, key)
    assert sums["count"] == len(sums["results"])


@pytest.mark.parametrize("keys", ["initiator,hour", "model,day"])
@pytest.mark.parametrize(
    ("minutes", "length"),
    [(0, 60), (5, 20), (5, 24 * 60), (30, 60), (0, 24 * 60 + 10), (17 * 60, 30 * 60), (7, 3000)],
)
def test_a_period_need_not_begin_on_the_hour_or_day(
    root: Person, past: History, keys: str, minutes: int, length: int
) -> None:
    begin = DAY + timedelta(hours=7, minutes=minutes)
    period = {
        "started_after": begin.isoformat(),
        "started_before": (begin + timedelta(minutes=length)).isoformat(),
    }
    sums, rows = (root.read("/usage", group_by=keys, q=q, **period) for q in ("", FOR_ROWS))
    assert sums == rows
    q = f"started_after:{period['started_after']} started_before:{period['started_before']}"
    assert root.read("/usage", group_by=keys, q=q) == sums
    shown = root.read("/interceptions", q=q)["results"]
    assert sums["totals"]["requests"] == sum(row["ended_at"] is not None for row in shown)


def test_totals_count_a_request_once_and_groups_each_of_theirs(root: Person, past: History) -> None:
    answer = root.read("/usage", group_by="group")
    assert {name: row["requests"] for name, row in by(answer, "group").items()} == {
        "blue": 8,
        "red": 9,
        "": 2,
    }
    assert answer["totals"]["requests"] == 11
    assert root.read("/usage", q="group:red")["totals"]["requests"] == 9
    assert root.read("/usage", q='group:""')["totals"]["requests"] == 2


def test_what_has_no_price_is_counted_and_what_failed_too(root: Person, past: History) -> None:
    rows = by(root.read("/usage", group_by="model"), "model")
    unpriced = rows["no such model"]
    assert (unpriced["unpriced_requests"], unpriced["cost_micros"], unpriced["errors"]) == (1, 0, 1)
    priced = rows["claude-sonnet-4-5"]
    one = 10 * 3 + 20 * 15 + 30 * 0.3 + 40 * 3.75
    assert priced["cost_micros"] == 9 * one + 1000 * 3 + 2000 * 15
    parts = ("output_micros", "cache_read_micros", "cache_write_micros", "fees_micros")
    assert priced["cost_micros"] - sum(priced[name] for name in parts) == 9 * 30 + 3000


@pytest.mark.parametrize(
    "keys", [{}, {"group_by": "model"}, {"group_by": "session"}, {"q": FOR_ROWS}], ids=str
)
def test_models_without_a_price_are_listed(
    root: Person, ann: Person, past: History, keys: dict[str, str]
) -> None:
    """Those that the question is about, and that the actor may see, the most used first."""
    for model, hour in (("another", 1), ("another", 2), ("claude-opus-5", 3)):
        past.add("ann", DAY + timedelta(hours=hour), model=model, client_session_id="s1")
    assert root.read("/usage", **keys)["unpriced_models"] == ["another", "no such model"]
    assert ann.read("/usage", **keys)["unpriced_models"] == ["another"]
    later = {"started_after": (DAY + timedelta(hours=8, minutes=30)).isoformat()}
    assert root.read("/usage", **keys, **later)["unpriced_models"] == ["no such model"]
    before = {"started_before": DAY.isoformat()}
    assert root.read("/usage", **keys, **before)["unpriced_models"] == []


def test_sessions_are_counted_once_up_to_31_days(root: Person, history: History) -> None:
    for days in (0, 30):
        history.add("ann", DAY + timedelta(days=days), client_session_id="s1")
    history.add("bob", DAY, client_session_id="s1")
    assert root.read("/usage")["totals"]["sessions"] == 2
    assert [row["sessions"] for row in root.read("/usage", group_by="day")["results"]] == [2, 1]
    history.add("ann", DAY + timedelta(days=32), client_session_id="s1")
    assert root.read("/usage")["totals"]["sessions"] is None
    limited = root.read("/usage", started_after=(DAY + timedelta(days=20)).isoformat())
    assert limited["totals"]["sessions"] == 1


def test_times_are_estimated_within_their_bucket(root: Person, history: History) -> None:
    for _ in range(4):
        history.add("ann", DAY, first_byte=0.3, seconds=3)
    totals = root.read("/usage")["totals"]
    assert (totals["first_byte_p50_ms"], totals["first_byte_p95_ms"]) == (300.0, 390.0)
    assert (totals["duration_p50_ms"], totals["duration_p95_ms"]) == (3000.0, 3900.0)
    empty = root.read("/usage", started_after="2030-01-01T00:00:00Z")["totals"]
    assert (empty["requests"], empty["first_byte_p50_ms"]) == (0, None)


def test_results_are_ordered_by_cost_and_paged(root: Person, past: History) -> None:
    whole = root.read("/usage", group_by="initiator,day,model")
    costs = [row["cost_micros"] for row in whole["results"]]
    assert costs == sorted(costs, reverse=True)
    pages = [root.read("/usage", group_by="initiator,day,model", limit=2, offset=n) for n in range(0, 20, 2)]
    assert [row for page in pages for row in page["results"]] == whole["results"]
    assert {page["count"] for page in pages} == {whole["count"]}


@pytest.mark.parametrize(
    "q", ["initiator:bob", "model:claude-sonnet-4-5", "client:Codex", "error_type:overloaded"]
)
def test_a_search_finds_the_same_in_sums_and_in_rows(root: Person, past: History, q: str) -> None:
    sums, rows = (root.read("/usage", group_by="day", q=text) for text in (q, f"{q} {FOR_ROWS}"))
    assert sums == rows
    assert sums["totals"]["requests"] > 0


@pytest.mark.parametrize("group_by", ["colour", "day,model,client,provider", "day,,model"])
def test_what_cannot_be_grouped_by_is_400(root: Person, group_by: str) -> None:
    response = root.get("/usage", query_string={"group_by": group_by})
    assert response.status_code == 400
    assert response.get_json()["validations"][0]["field"].startswith("group_by")


@pytest.mark.parametrize("path", ["/usage", "/tools"])
def test_others_see_their_own(ann: Person, bob: Person, root: Person, past: History, path: str) -> None:
    whole, anns, bobs = (person.read(path, group_by="initiator") for person in (root, ann, bob))
    assert {row["initiator"] for row in anns["results"]} <= {"ann"}
    assert {row["initiator"] for row in bobs["results"]} <= {"bob"}
    assert ann.read(path, group_by="initiator", q="initiator:bob")["results"] == []
    assert ann.read(path, group_by="initiator", q=f"initiator:bob {FOR_ROWS}")["results"] == []
    if path == "/usage":
        counts = [answer["totals"]["requests"] for answer in (whole, anns, bobs)]
        assert counts == [11, 8, 3]


def test_tools_are_summed_by_server_and_key(root: Person, history: History) -> None:
    history.add("ann", DAY, tools=(("Read", "a1"), ("Read", "a2"), ("Bash", "failed 1")))
    history.add("bob", DAY + timedelta(hours=1), tools=(("Read", "b1"),))
    answer = root.read("/tools")
    assert answer["results"] == [
        {"tool": "Read", "server_url": "", "injected": False, "calls": 3, "failures": 0, "duration_ms": 0},
        {"tool": "Bash", "server_url": "", "injected": False, "calls": 1, "failures": 1, "duration_ms": 0},
    ]
    assert answer["totals"] == {"calls": 4, "failures": 1, "duration_ms": 0}
    by_actor = root.read("/tools", group_by="initiator")
    assert {key: row["calls"] for key, row in by(by_actor, "initiator", "tool").items()} == {
        ("ann", "Read"): 2,
        ("ann", "Bash"): 1,
        ("bob", "Read"): 1,
    }
    assert root.read("/tools", q=FOR_ROWS) == answer
    assert [row["calls"] for row in root.read("/tools", q="tool:Read")["results"]] == [3]


def rows_of(person: Person, path: str, **parameters: object) -> list[dict[str, str]]:
    response = person.get(path, query_string=parameters)
    assert (response.status_code, response.mimetype) == (200, "text/csv")
    return list(csv.DictReader(io.StringIO(response.text, newline="")))


def test_csv_has_what_json_has(root: Person, past: History) -> None:
    parameters = {"group_by": "initiator,model"}
    table = rows_of(root, "/usage", format="csv", **parameters)
    results = root.read("/usage", **parameters)["results"]
    assert table == [
        {name: "" if value is None else str(value) for name, value in row.items()} for row in results
    ]


def test_no_cell_of_a_table_is_a_formula(root: Person, history: History) -> None:
    history.add("ann", DAY, model='=HYPERLINK("https://evil","x")')
    (row,) = rows_of(root, "/usage", format="csv", group_by="model")
    assert row["model"] == '\'=HYPERLINK("https://evil","x")'


MANDATORY = [
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ServiceCategory",
    "ServiceName",
]


def test_focus_has_a_row_for_each_kind_of_tokens(root: Person, past: History) -> None:
    table = rows_of(root, "/usage", format="focus")
    assert set(MANDATORY) <= set(table[0])
    assert all(row[name] for row in table for name in MANDATORY if name != "ChargeClass")
    own = [row for row in table if row["x_CredentialKind"] == "byok"]
    assert {(row["BilledCost"], row["ListCost"], row["SkuMeter"]) for row in own} == {
        ("0.000000", "0.003000", "input"),
        ("0.000000", "0.030000", "output"),
    }
    listed = sum(float(row["ListCost"]) for row in table)
    assert round(listed * 1e6) == root.read("/usage")["totals"]["cost_micros"]
    first = table[-1]
    assert (first["BillingPeriodStart"], first["BillingPeriodEnd"]) == (
        "2026-11-01T00:00:00Z",
        "2026-12-01T00:00:00Z",
    )


def test_names_are_those_of_what_the_actor_may_see(
    ann: Person, bob: Person, root: Person, past: History
) -> None:
    assert root.read("/models") == ["claude-sonnet-4-5", "no such model"]
    assert ann.read("/models") == ["claude-sonnet-4-5"]
    assert root.read("/clients") == ["Claude Code", "Codex"]
    assert root.read("/groups") == ["blue", "red"]
    assert bob.read("/groups") == ["red"]
    assert root.read("/models", q="error_type:overloaded") == ["no such model"]
    assert root.read("/models", q="kind:main", limit=1, offset=1) == ["no such model"]
    assert root.read("/clients", q="kind:title") == []
