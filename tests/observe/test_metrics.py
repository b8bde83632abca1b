"""Metrics after real exchanges, in one process."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from flask import Flask

from aibridge_flask import AIBridge, config
from aibridge_flask.hooks import Hooks
from aibridge_flask.model import Usage, new_id
from aibridge_flask.observe.instruments import METRICS, metrics_table
from aibridge_flask.observe.metrics import Metrics
from aibridge_flask.records.events import (
    Ended,
    EventRecorded,
    InterceptionEnded,
    InterceptionStarted,
    Started,
    TokenUsage,
    ToolUsage,
    now,
)
from aibridge_flask.records.recorder import Recorder
from tests.conftest import MakeApp, providers
from tests.support.clock import Clock
from tests.support.dialogue import ASK, ASK_BLOCKING, BLOCK, END, MESSAGES, START, TOOL_MESSAGE
from tests.support.exchanges import ALL, Exchange
from tests.support.records import write_dead_workers_spool
from tests.support.scrape import Page, scrape_app
from tests.support.server import PREFIX, ROOT, wait_until
from tests.support.upstream import (
    CLOSE,
    LAST_CHUNK,
    Upstream,
    chunk,
    event_stream,
    http_response,
    stream_head,
)

ON = {"enabled": True}
MODEL = "claude-sonnet-4-5"


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app(metrics=ON)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def post(app: Flask, path: str, body: bytes, **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return app.test_client().post(PREFIX + path, data=body, headers=named, buffered=True).status_code


def ask(app: Flask, model: str = MODEL) -> int:
    return post(app, MESSAGES, json.dumps({"model": model}).encode())


def test_the_readme_lists_every_metric(app: Flask) -> None:
    assert "\n".join(metrics_table()) in (ROOT / "docs" / "observe.md").read_text()
    assert scrape_app(app).types() == {name: metric.type for name, metric in METRICS.items()}


def test_every_metric_of_one_exchange(app: Flask, upstream: Upstream) -> None:
    upstream.enqueue(http_response(200, TOOL_MESSAGE))
    assert post(app, MESSAGES, ASK_BLOCKING, User_Agent="claude-cli/2.0") == 200
    page = scrape_app(app)
    labels = {"provider": "anthropic", "model": MODEL}
    actor = {"initiator_id": "local", "client": "Claude Code"}
    route = {"route": "/v1/messages"}
    assert (
        page.value("interceptions_total", **labels, **actor, **route, status="completed", method="POST") == 1
    )
    assert page.value("interceptions_inflight", **labels, **route) == 0
    assert page.value("interceptions_duration_seconds_count", **labels) == 1
    assert page.value("time_to_first_byte_seconds_count") == 1
    assert page.value("overhead_seconds_count", provider="anthropic", **route) == 1
    assert 0 < page.sum("overhead_seconds_sum") <= page.sum("time_to_first_byte_seconds_sum")
    assert page.value("prompts_total", **labels, **actor) == 1
    assert page.by_label("tokens_total", "type", **labels, **actor) == {
        "input": 5, "output": 7, "cache_read_input_tokens": 11, "cache_write_input_tokens": 13,
        "web_search_requests": 2,
    }  # fmt: skip
    assert page.value("non_injected_tool_selections_total", **labels, name="Read") == 1
    assert page.samples("injected_tool_invocations_total") == page.samples("passthrough_total") == []
    assert page.value("key_pool_failover_attempts_sum", provider="anthropic") == 1
    wait_until(
        lambda: scrape_app(app).value("records_spooled") == scrape_app(app).value("records_behind_bytes") == 0
    )
    assert (page.value("records_rejected_total"), page.value("records_lost_total")) == (0, 0)


@pytest.mark.parametrize("exchange", ALL, ids=lambda exchange: exchange.name)
def test_metrics_and_records_agree(app: Flask, upstream: Upstream, exchange: Exchange) -> None:
    status, body = exchange.status_and_body()
    upstream.enqueue(
        *(event_stream(body) if exchange.streaming and status == 200 else [http_response(status, body)])
    )
    assert post(app, exchange.route, exchange.request) == status
    app.extensions["aibridge"].close(app)  # events after the last one of the stream are written too
    (record,) = app.test_client().get(f"{PREFIX}/interceptions").get_json()["results"]
    page = scrape_app(app)
    status_label = "failed" if record["error_type"] else "completed"
    assert page.by_label("interceptions_total", "status") == {status_label: 1}
    assert page.sum("interceptions_inflight") == 0
    assert page.sum("prompts_total") == len(record["user_prompts"])
    tools = Counter(tool_use["tool"] for tool_use in record["tool_usages"])
    assert page.by_label("non_injected_tool_selections_total", "name") == tools
    tokens: Counter[str] = Counter()
    for usage in record["token_usages"]:
        tokens.update({"input": usage["input_tokens"], "output": usage["output_tokens"], **usage["metadata"]})
        tokens.update({name: usage[name] for name in ("cache_read_input_tokens", "cache_write_input_tokens")})
    assert page.by_label("tokens_total", "type") == +tokens


@pytest.mark.parametrize(
    "script",
    [
        [http_response(500, b"{}")], [http_response(400, b"{}")], [CLOSE], [stream_head(), chunk(START + BLOCK), CLOSE],
        [stream_head(), chunk(START), LAST_CHUNK],
    ],
)  # fmt: skip
def test_failures_are_counted_as_failed(app: Flask, upstream: Upstream, script: list[object]) -> None:
    upstream.enqueue(*script)
    response = app.test_client().post(PREFIX + MESSAGES, data=ASK)
    try:
        response.get_data()
    except OSError:
        assert CLOSE in script
    response.close()
    page = scrape_app(app)
    assert page.by_label("interceptions_total", "status") == {"failed": 1}
    assert page.sum("interceptions_inflight") == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [(MESSAGES, b"no JSON"), ("/copilot/chat/completions", b"{}"), ("/off/v1/responses", b"{}")],
)
def test_requests_that_the_bridge_refuses_are_not_counted(app: Flask, path: str, body: bytes) -> None:
    assert post(app, path, body) >= 400
    page = scrape_app(app)
    assert page.samples("interceptions_total") == page.samples("interceptions_inflight") == []


def test_a_running_stream_is_counted_as_inflight(app: Flask, upstream: Upstream) -> None:
    upstream.enqueue(stream_head(), chunk(START + BLOCK), chunk(END), LAST_CHUNK)
    response = app.test_client().post(PREFIX + MESSAGES, data=ASK)
    assert (
        scrape_app(app).value(
            "interceptions_inflight", provider="anthropic", model=MODEL, route="/v1/messages"
        )
        == 1
    )
    assert response.get_data() == START + BLOCK + END
    page = scrape_app(app)
    assert page.sum("interceptions_inflight") == 0
    assert page.by_label("tokens_total", "type") == {"input": 3, "output": 7}


def test_passthrough_is_counted_by_allowlist_entry(app: Flask, upstream: Upstream) -> None:
    upstream.handler = lambda received: [http_response(200, b"{}")]
    client = app.test_client()
    for path in ("/v1/models/a", "/v1/models/b", "/v1/models", "/v1/else", "/v1/models/..%2f"):
        client.get(f"{PREFIX}/anthropic{path}", buffered=True)
    client.delete(f"{PREFIX}/second/v1/models/a", headers={"X-Api-Key": "own-0123456789"}, buffered=True)
    samples = scrape_app(app).samples("passthrough_total")
    assert [(tuple(labels.values()), count) for labels, count in samples] == [
        (("GET", "anthropic", "/v1/models/*"), 2), (("GET", "anthropic", "/v1/models"), 1),
        (("DELETE", "second", "/v1/models/*"), 1),
    ]  # fmt: skip


def test_a_breakers_state_trips_and_rejects_are_counted(
    make_app: MakeApp, upstream: Upstream, clock: Clock
) -> None:
    limits = {"failure_threshold": 2, "interval": 10.0, "timeout": 30.0, "max_requests": 1}
    (provider, *_) = providers(upstream.url)
    app = make_app(metrics=ON, providers=[{**provider, "circuit_breaker": limits}])
    breaker_labels = {"provider": "anthropic", "endpoint": "/v1/messages", "model": "m"}

    def state_after(reply: bytes) -> tuple[float, float, float]:
        upstream.enqueue(reply)
        ask(app, "m")
        page = scrape_app(app)
        for name in ("state", "trips_total", "rejects_total"):
            assert all(labels == breaker_labels for labels, _ in page.samples(f"circuit_breaker_{name}"))
        return tuple(
            page.sum(f"circuit_breaker_{name}") for name in ("state", "trips_total", "rejects_total")
        )

    down, ok = http_response(503, b"{}"), http_response(200, b"{}")
    assert state_after(down) == (0, 0, 0)
    assert state_after(down) == (1, 1, 0)
    assert state_after(down) == (1, 1, 1)
    upstream.reset()
    clock.advance(31)
    assert state_after(down) == (1, 2, 1)
    clock.advance(31)
    assert state_after(ok) == (0, 2, 1)
    assert scrape_app(app).by_label("interceptions_total", "status") == {"failed": 4, "completed": 1}


def test_key_states_and_their_transitions_are_counted(
    make_app: MakeApp, upstream: Upstream, clock: Clock
) -> None:
    (provider, *_) = providers(upstream.url)
    keys = [{"value": f"sk-ant-{letter}-0123456789"} for letter in "abc"]
    app = make_app(metrics=ON, providers=[{**provider, "keys": keys}])

    def states() -> tuple[float, ...]:
        counts = scrape_app(app).by_label("key_pool_state", "state", provider="anthropic")
        return tuple(counts[state] for state in ("valid", "temporary", "unauthorized"))

    assert states() == (3, 0, 0)
    limited, refused = http_response(429, b"{}", "Retry-After: 20"), http_response(401, b"{}")
    for reply in (limited, refused, http_response(200, b"{}")):
        upstream.enqueue(reply)
    assert ask(app) == 200
    assert states() == (1, 1, 1)
    upstream.enqueue(http_response(429, b"{}", "Retry-After: 5"))
    assert [ask(app), ask(app)] == [429, 429]
    assert states() == (0, 2, 1)
    page = scrape_app(app)
    assert page.by_label("key_pool_state_transitions_total", "reason") == {
        "rate_limited": 2,
        "unauthorized": 1,
    }
    assert page.value("key_pool_exhaustions_total", provider="anthropic", outcome="rate_limited") == 2
    assert page.value("key_pool_failover_attempts_sum", provider="anthropic") == 4
    assert page.by_label("key_pool_failover_attempts_bucket", "le")["1.0"] == 2
    for seconds, expected in ((6, (1, 1, 1)), (15, (2, 0, 1)), (40, (3, 0, 0))):
        clock.advance(seconds)
        assert states() == expected
    assert "key_rests_until" not in page.text
    assert not any(letter in page.text for letter in ("sk-ant", "0123456789"))


def test_clients_own_keys_are_no_pool(app: Flask, upstream: Upstream) -> None:
    upstream.enqueue(http_response(401, b"{}"))
    assert post(app, MESSAGES, ASK_BLOCKING, X_Api_Key="sk-ant-own-0123456789") == 401
    page = scrape_app(app)
    assert page.samples("key_pool_failover_attempts_count") == []
    assert {labels["provider"] for labels, _ in page.samples("key_pool_state")} == {"anthropic", "openai"}


def test_a_pool_whose_keys_are_all_refused_counts_as_exhausted(app: Flask, upstream: Upstream) -> None:
    upstream.enqueue(http_response(401, b"{}"))
    assert ask(app) == 502
    page = scrape_app(app)
    assert page.value("key_pool_exhaustions_total", provider="anthropic", outcome="unauthorized") == 1
    assert page.samples("key_pool_state_transitions_total") == []
    assert page.by_label("interceptions_total", "status") == {"failed": 1}


def test_providers_are_listed(app: Flask) -> None:
    counts = {tuple(labels.values()): count for labels, count in scrape_app(app).samples("provider_info")}
    assert counts == {
        ("anthropic", "anthropic", "enabled"): 1, ("openai", "openai", "enabled"): 1,
        ("copilot", "copilot", "enabled"): 1, ("second", "anthropic", "enabled"): 1,
        ("off", "openai", "disabled"): 1,
    }  # fmt: skip


@pytest.fixture
def hooks_and_metrics(database_url: str, tmp_path: Path) -> tuple[Hooks, Metrics]:
    settings = config.load({"database_url": database_url, "spool_dir": str(tmp_path / "spool")})
    hooks = Hooks()
    return hooks, Metrics(hooks, Recorder(settings, hooks), ())


def test_a_thousand_models_make_a_hundred_and_one_labels(hooks_and_metrics: tuple[Hooks, Metrics]) -> None:
    hooks, metrics = hooks_and_metrics
    for number in range(1000):
        actor = {"initiator_id": f"user{number * 2}", "provider_name": "anthropic", "model": f"m{number}"}
        started = Started(new_id(), started_at=now(), **actor)
        usage = Usage(1, metadata={f"kind{number}": 1})
        hooks.emit(InterceptionStarted(started))
        tool = ToolUsage(started.id, 0, 0, "r", "c", "", f"tool{number}", "", now())
        hooks.emit(EventRecorded(started, tool))
        hooks.emit(InterceptionEnded(started, Ended(started.id, now(), usage=usage)))
    hooks.emit(InterceptionStarted(Started(new_id(), "one-more", now(), model="m5")))
    page = Page(metrics.page("")[0].decode())
    counts = page.by_label("interceptions_duration_seconds_count", "model")
    assert (len(counts), counts["m99"], counts["other"]) == (101, 1, 900)
    assert len(page.by_label("non_injected_tool_selections_total", "name")) == 201
    assert page.sum("tokens_total") == 2000
    assert len({labels["type"] for labels, _ in page.samples("tokens_total")}) == 51
    assert len({labels["initiator_id"] for labels, _ in page.samples("interceptions_total")}) == 1000
    assert page.by_label("interceptions_inflight", "model", provider="")["m5"] == 1
    assert page.sum("interceptions_inflight") == 1


def test_the_bridges_own_tools_are_counted_separately(hooks_and_metrics: tuple[Hooks, Metrics]) -> None:
    hooks, metrics = hooks_and_metrics
    started = Started(new_id(), "ann", now(), provider_name="anthropic", model="m")
    tool_fields = (started.id, 0, 0, "r", "c", "", "search", "", now())
    hooks.emit(EventRecorded(started, ToolUsage(*tool_fields, injected=True, server_url="http://docs/mcp")))
    page = Page(metrics.page("")[0].decode())
    labels = {"provider": "anthropic", "model": "m", "server": "http://docs/mcp", "name": "search"}
    assert page.value("injected_tool_invocations_total", **labels) == 1
    assert page.samples("non_injected_tool_selections_total") == []


@pytest.mark.parametrize(
    ("model", "label"),
    [('a"\\\n', 'a"\\\n'), ("\ud800", "?"), ("x" * 100_000, "x" * 128), ("\0", "\ufffd"), ("", "")],
)
def test_any_model_name_makes_a_valid_label(app: Flask, upstream: Upstream, model: str, label: str) -> None:
    upstream.enqueue(http_response(200, b"{}"))
    assert ask(app, model) == 200
    assert scrape_app(app).by_label("interceptions_total", "model") == {label: 1}


@pytest.mark.parametrize(
    ("accept", "kind", "end"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8", "\n"),
        (
            "application/openmetrics-text;version=1.0.0",
            "application/openmetrics-text; version=1.0.0",
            "# EOF\n",
        ),
    ],
)
def test_the_page_has_the_requested_content_type(app: Flask, accept: str, kind: str, end: str) -> None:
    response = app.test_client().get(f"{PREFIX}/metrics", headers={"Accept": accept})
    assert response.headers["Content-Type"].startswith(kind)
    assert response.get_data(as_text=True).endswith(end)
    assert "X-AIBridge-Interception-Id" not in response.headers


def test_without_metrics_the_page_is_an_unknown_path(make_app: MakeApp) -> None:
    client = make_app().test_client()
    metrics, unknown = (client.get(f"{PREFIX}/{name}") for name in ("metrics", "another"))
    assert metrics.status_code == unknown.status_code == 404
    assert metrics.get_data(as_text=True) == unknown.get_data(as_text=True).replace("another", "metrics")


def test_the_page_needs_no_identity(make_app: MakeApp) -> None:
    app = make_app(metrics=ON, auth={"mode": "token"})
    assert ask(app) == 401
    assert scrape_app(app).samples("interceptions_total") == []


def test_two_applications_of_one_bridge_are_counted_separately(tmp_path: Path, upstream: Upstream) -> None:
    bridge, apps = AIBridge(), []
    ended: list[InterceptionEnded] = []
    bridge.on_interception_ended(ended.append)
    for name in "ab":
        app = Flask(name)
        url = f"sqlite:///{tmp_path}/{name}.db"
        app.config["AIBRIDGE"] = {"database_url": url, "providers": providers(upstream.url), "metrics": ON}
        bridge.init_app(app)
        apps.append(app)
    upstream.handler = lambda received: [http_response(200, b"{}")]
    assert [ask(apps[0]), ask(apps[0]), ask(apps[1])] == [200] * 3
    assert [scrape_app(app).sum("interceptions_total") for app in apps] == [2, 1]
    assert len(ended) == 3
    for app in apps:
        bridge.close(app)


def run_python(code: str, folder: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    tree = {"database_url": f"sqlite:///{folder}/records.db", **settings}
    code = f"import sys\nfrom aibridge_flask import create_app\ntree = {tree!r}\n{code}"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_without_metrics_the_library_is_not_loaded(upstream: Upstream, tmp_path: Path) -> None:
    upstream.enqueue(http_response(200, TOOL_MESSAGE))
    request = f"create_app(tree).test_client().post({PREFIX + MESSAGES!r}, data={ASK_BLOCKING!r}).get_data()"
    code = f"print({request} == {TOOL_MESSAGE!r}, 'prometheus_client' in sys.modules)"
    assert run_python(code, tmp_path, providers=providers(upstream.url)).stdout == "True False\n"


def test_records_that_wait_are_shown_until_they_are_written(
    make_app: MakeApp, upstream: Upstream, database_url: str
) -> None:
    app = make_app(metrics=ON)
    upstream.handler = lambda received: [http_response(200, TOOL_MESSAGE)]
    with sqlite3.connect(database_url.removeprefix("sqlite:///"), isolation_level=None) as lock:
        lock.execute("BEGIN IMMEDIATE")
        counts = []
        for _ in range(3):
            assert ask(app) == 200
            counts.append(scrape_app(app).value("records_spooled"))
        assert counts == [4, 8, 12]  # Started, TokenUse, ToolUse, Ended
        lock.execute("ROLLBACK")
    wait_until(lambda: scrape_app(app).value("records_spooled") == 0)
    assert scrape_app(app).value("records_lost_total") == 0
    lock.close()


def test_records_that_the_database_rejects_are_counted(
    app: Flask, upstream: Upstream, database_url: str
) -> None:
    with sqlite3.connect(database_url.removeprefix("sqlite:///")) as database:
        database.execute(
            "CREATE TRIGGER never BEFORE INSERT ON tool_usages BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    database.close()
    upstream.enqueue(http_response(200, TOOL_MESSAGE))
    assert ask(app) == 200
    wait_until(lambda: scrape_app(app).value("records_rejected_total") == 1)
    assert scrape_app(app).value("records_lost_total") == 0
    (record,) = app.test_client().get(f"{PREFIX}/interceptions").get_json()["results"]
    assert (record["tool_usages"], len(record["token_usages"])) == ([], 1)


def test_unreadable_spool_lines_are_counted_as_lost(make_app: MakeApp, tmp_path: Path) -> None:
    orphan = msgspec.json.encode(
        ["TokenUse", TokenUsage("nobody", 0, "r", "m", Usage(), now())], enc_hook=dict
    )
    write_dead_workers_spool(
        tmp_path / "spool", b"\n", b"junk\n", orphan + b"\n", b'["Unknown",{}]\n', b'["cut'
    )
    app = make_app(metrics=ON)
    app.extensions["aibridge"].start(app)
    wait_until(lambda: scrape_app(app).value("records_rejected_total") == 1)
    wait_until(lambda: scrape_app(app).value("records_lost_total") == 2)
    assert scrape_app(app).value("records_spooled") == 0


def test_records_left_at_shutdown_stay_in_the_log(database_url: str, tmp_path: Path) -> None:
    hooks = Hooks()
    tree = {"database_url": database_url, "spool_dir": str(tmp_path / "spool")}
    first, id = Recorder(config.load(tree), hooks), new_id()
    first.begin(Started(id, "ann", now()))
    wait_until(lambda: first.backlog().events == 0)
    with (
        sqlite3.connect(database_url.removeprefix("sqlite:///"), isolation_level=None) as lock,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr("aibridge_flask.records.recorder._CLOSE_SECONDS", 0.3)
        lock.execute("BEGIN IMMEDIATE")
        first.record(TokenUsage(id, 0, "r", "m", Usage(), now()), Ended(id, now()))
        first.close()
        second = Recorder(config.load(tree), hooks)
        second.start()
        page = Page(Metrics(hooks, second, ()).page("")[0].decode())
        assert (page.value("records_lost_total"), page.value("records_spooled")) == (0, 2)
        assert page.value("records_behind_bytes") > 0
        lock.execute("ROLLBACK")
    lock.close()
    wait_until(lambda: second.backlog().events == 0)
    second.close()
