"""`/live`: what runs now on all workers and hosts, and its end by an administrator."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from time import monotonic
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from aibridge_flask import config
from aibridge_flask.config.settings import RecordSettings
from aibridge_flask.errors import SessionStopped
from aibridge_flask.hooks import Hooks
from aibridge_flask.in_flight import InFlight
from aibridge_flask.records import database as databases
from aibridge_flask.records.interception import InterceptionRecord
from aibridge_flask.records.live import Stop
from aibridge_flask.records.recorder import Recorder
from aibridge_flask.records.tables import live_lists, live_stops
from aibridge_flask.waiting import watch
from tests.conftest import BOTH_DATABASES, MakeApp, Start, providers
from tests.support import records
from tests.support.dialogue import ASK, ASK_BLOCKING, BLOCK, DELTA, MESSAGES, START
from tests.support.people import Person, app_for_people
from tests.support.server import PREFIX, Client, Server, wait_until
from tests.support.upstream import WAIT_FOR_CLOSE, Upstream, chunk, event_stream, http_response, stream_head

RESPONSES = "/openai/v1/responses"
ASK_RESPONSES = b'{"model":"gpt-5","stream":true,"input":"hi"}'
STREAM = (stream_head(), chunk(START + BLOCK + DELTA))
SESSION = {"User-Agent": "claude-cli/2.1", "X-Claude-Code-Session-Id": "s"}
HEADER_MODE = {"mode": "header", "admin_actors": ["root"]}


@pytest.fixture(scope="module")
def workers(shared_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers, which know their people by a header."""
    settings = {
        "providers": [{**each, "max_retries": 1} for each in providers(shared_upstream.url)],
        "drain_delay": 0,
        "auth": HEADER_MODE,
    }
    server = Server(
        tmp_path_factory.mktemp("live"), settings, environ={"AIBRIDGE_WORKERS": "2"}, is_forked=True
    )
    server.headers = {"X-Remote-User": "root"}
    yield server.wait_ready()
    server.stop_cleanly()


@pytest.fixture
def server(workers: Server, upstream: Upstream) -> Iterator[Server]:
    yield workers
    workers.disconnect()


def ask(
    server: Server, body: bytes = ASK, path: str = MESSAGES, user: str = "ann", session: str = ""
) -> Client:
    client = server.connect()
    named = {"User_Agent": "claude-cli/2.1", "X_Claude_Code_Session_Id": session} if session else {}
    client.send("POST", path, body, X_Remote_User=user, **named)
    return client


def running(server: Server, user: str = "root") -> list[dict[str, Any]]:
    client = server.connect()
    client.send("GET", "/live", X_Remote_User=user)
    status, headers = client.head()
    answer = json.loads(client.body(headers)[0])
    assert (status, answer["own_worker_only"], answer["count"]) == (200, False, len(answer["results"]))
    results: list[dict[str, Any]] = answer["results"]
    return results


def wait_for(server: Server, *states: str) -> list[dict[str, Any]]:
    """Waits until the workers have told each other what they serve: one knows of another's a second later."""
    running(server)

    def told() -> list[str]:
        rows = records.rows(f"sqlite:///{server.folder}/records.db", live_lists)
        return [each["state"] for row in rows for each in json.loads(row["interceptions"])]

    wait_until(lambda: told() == [*states])
    return running(server)


def stop(server: Server, id: str, user: str = "root") -> int:
    client = server.connect()
    client.send("DELETE", f"/live/{id}", X_Remote_User=user, Content_Type="application/json")
    return client.head()[0]


def test_who_looks_sees_what_all_workers_serve_and_who_is_no_administrator_their_own(
    server: Server, upstream: Upstream
) -> None:
    for _ in range(6):  # on both workers
        upstream.enqueue(*STREAM, WAIT_FOR_CLOSE)
    streams = [ask(server, user=user, session=f"s-{user}") for user in ("ann", "bob") * 3]
    ids = {stream.head()[1]["x-aibridge-interception-id"] for stream in streams}
    found, own = wait_for(server, *6 * ["streaming"]), running(server, "bob")
    assert {each["id"] for each in found} == ids
    assert [each["age_ms"] for each in found] == sorted((each["age_ms"] for each in found), reverse=True)
    (first, *_) = [each for each in found if each["initiator_id"] == "ann"]
    assert (first["client"], first["session_id"], first["model"]) == (
        "Claude Code",
        "s-ann",
        "claude-sonnet-4-5",
    )
    assert first["bytes"] == len(START + BLOCK + DELTA)
    assert first["state"] == "streaming"
    assert first["tokens"] >= 4
    assert first["age_ms"] > 0
    assert [each["initiator_id"] for each in own] == ["bob"] * 3
    server.disconnect()
    assert wait_for(server) == []


def test_a_stopped_stream_ends_with_an_error_and_its_session_is_refused(
    server: Server, upstream: Upstream
) -> None:
    upstream.enqueue(*STREAM, WAIT_FOR_CLOSE)
    stream = ask(server, session="runaway")
    _, headers = stream.head()
    assert stream.chunk() == START + BLOCK + DELTA
    id = headers["x-aibridge-interception-id"]
    assert stop(server, id, user="ann") == 403
    assert stop(server, id) == 204
    end, is_whole = stream.chunks()
    error = json.loads(end.removeprefix(b"event: error\ndata: "))["error"]
    assert (error["type"], is_whole) == ("billing_error", False)
    assert error["message"].startswith("an administrator has stopped this session")
    assert upstream.peer_closed.wait(20)
    assert (server.record(id)["error_type"], server.record(id)["status_code"]) == ("policy", 200)

    for _ in range(4):  # on whichever worker
        refused = ask(server, session="runaway")
        status, headers = refused.head()
        body = json.loads(refused.body(headers)[0])
        assert (status, body["error"]["type"], headers["x-should-retry"]) == (429, "billing_error", "false")
        assert 1 <= int(headers["retry-after"]) <= 60
    record = server.record(headers["x-aibridge-interception-id"])
    assert (record["error_type"], record["status_code"], record["attempts"]) == ("policy", 429, 0)
    assert len(upstream.requests) == 1

    upstream.enqueue(*event_stream(START))
    assert ask(server, session="another").head()[0] == 200
    upstream.enqueue(*event_stream(START))
    assert ask(server, session="runaway", user="bob").head()[0] == 200
    (row, *_) = server.get("/audit")["results"]
    assert (row["action"], row["target"], row["actor_id"]) == ("live.stop", id, "root")
    assert row["before"]["session_id"] == "runaway"


def test_without_a_session_the_actors_requests_for_the_model_are_refused(
    server: Server, upstream: Upstream
) -> None:
    upstream.enqueue(WAIT_FOR_CLOSE)
    waiting = ask(server, ASK_RESPONSES, RESPONSES, user="carl")
    (found,) = wait_for(server, "waiting")
    assert stop(server, found["id"]) == 204
    status, headers = waiting.head()
    error = json.loads(waiting.body(headers)[0])["error"]
    assert (status, error["type"], error["code"]) == (429, "usage_limit_reached", "insufficient_quota")
    assert 0 < error["resets_at"] - time.time() <= 61
    assert headers["x-codex-promo-message"] == error["message"]
    assert ask(server, ASK_RESPONSES, RESPONSES, user="carl").head()[0] == 429
    upstream.enqueue(http_response(200, b"{}"))
    assert (
        ask(server, ASK_RESPONSES.replace(b"gpt-5", b"gpt-5-mini"), RESPONSES, user="carl").head()[0] == 200
    )


def test_a_request_that_is_tried_again_says_so(server: Server, upstream: Upstream) -> None:
    upstream.enqueue(http_response(500, b"{}"))
    upstream.enqueue(WAIT_FOR_CLOSE)
    ask(server, ASK_BLOCKING)
    wait_for(server, "retrying")


def test_what_does_not_run_is_404(server: Server) -> None:
    assert stop(server, "019a3e7c-5a40-7000-8000-000000000001") == 404


def test_a_stopped_stream_ends_also_on_threads(start: Start, upstream: Upstream) -> None:
    server = start(kind="gthread", auth=HEADER_MODE)
    upstream.enqueue(*STREAM, WAIT_FOR_CLOSE)
    stream = ask(server)
    _, headers = stream.head()
    assert stream.chunk() == START + BLOCK + DELTA
    assert stop(server, headers["x-aibridge-interception-id"]) == 204
    assert b"billing_error" in stream.chunks()[0]


@BOTH_DATABASES
def test_another_hosts_stream_is_seen_and_stopped(
    make_app: MakeApp, upstream: Upstream, tmp_path: Any, database_url: str
) -> None:
    first, second = (_host(make_app, f"{tmp_path}/{name}") for name in ("first", "second"))
    with ThreadPoolExecutor() as pool, _stream(first, upstream, pool) as answer:
        root = Person(second, upstream, "root")
        root.ask()  # its worker has begun
        (found,) = root.read("/live")["results"]  # the first look waits for the others
        assert found["initiator_id"] == "ann"
        assert root.change("DELETE", f"/live/{found['id']}").status_code == 204
        assert b"billing_error" in answer()
    for app in (first, second):
        assert (
            Person(app, upstream, "ann").get(MESSAGES, "POST", data=ASK, headers=SESSION).status_code == 429
        )


def _host(make_app: MakeApp, folder: str) -> Flask:
    return app_for_people(make_app, spool_dir=folder, keepalive_interval=0.1)


class _stream:
    """A stream of Ann's that does not end, until somebody ends it."""

    def __init__(self, app: Flask, upstream: Upstream, pool: ThreadPoolExecutor) -> None:
        self._app, self._upstream, self._pool = app, upstream, pool

    def __enter__(self) -> Callable[[], bytes]:
        self._upstream.enqueue(*STREAM, WAIT_FOR_CLOSE)
        body = self._pool.submit(self._read)
        self._upstream.wait_for_requests(1)
        return lambda: body.result(20)

    def __exit__(self, *_: object) -> None:
        self._upstream.reset()

    def _read(self) -> bytes:
        headers = {"X-Who": "ann", **SESSION}
        pieces = []
        with self._app.test_client() as client:
            response = client.post(PREFIX + MESSAGES, data=ASK, headers=headers)
            try:
                pieces += response.response
            except OSError:
                pieces.append(b"cut")
        return b"".join(pieces)


def test_while_nobody_looks_nothing_is_written(
    make_app: MakeApp, upstream: Upstream, database_url: str
) -> None:
    app = app_for_people(make_app)
    root = Person(app, upstream, "root")
    root.ask()
    engine = databases.connect(database_url)
    assert records.rows(database_url, live_lists) == []
    root.read("/live")
    wait_until(lambda: len(records.rows(database_url, live_lists)) == 1)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(sa.text("UPDATE live_views SET until = '2020-01-01 00:00:00'"))
    wait_until(lambda: records.rows(database_url, live_lists) == [])
    assert records.rows(database_url, live_stops) == []


def test_without_the_database_it_is_the_own_workers_list_and_says_so(
    make_app: MakeApp, upstream: Upstream
) -> None:
    app = app_for_people(
        make_app, database_url="postgresql+psycopg://nobody@127.0.0.1:9/none", keepalive_interval=0.1
    )
    with ThreadPoolExecutor() as pool, _stream(app, upstream, pool):
        root = Person(app, upstream, "root")
        answer = root.read("/live")
        assert (answer["count"], answer["own_worker_only"]) == (1, True)
        assert Person(app, upstream, "bob").read("/live")["count"] == 0
        assert root.change("DELETE", f"/live/{answer['results'][0]['id']}").status_code == 503


@cache
def idle_recorder() -> tuple[Recorder, RecordSettings]:
    """It records nothing."""
    settings = config.load({})
    return Recorder(settings), settings.records


def record_of(session: str) -> InterceptionRecord:
    recorder, keep = idle_recorder()
    started = records.started(f"id of {session}", client_session_id=session)
    return InterceptionRecord(recorder, keep, Hooks(), started)


def test_what_a_session_asks_before_a_worker_knows_of_its_stop_is_ended_too() -> None:
    before = monotonic()
    in_flight, late, other = InFlight(), watch(None), watch(None)
    in_flight.add(record_of("stopped"), late)
    in_flight.add(record_of("other"), other)
    stop = Stop("of another worker", "ann", "stopped", "", before, monotonic() + 60)
    in_flight.stop([stop])
    late.check()
    in_flight.stop([stop], all_know=True)
    other.check()
    with pytest.raises(SessionStopped):
        late.check()


def test_a_stop_ends_after_its_time() -> None:
    in_flight = InFlight()
    in_flight.stop([Stop("x", "ann", "stopped", "", monotonic() - 61, monotonic() - 1)])
    remove = in_flight.add(record_of("stopped"), watch(None))
    assert [each.session_id for each in in_flight.list()] == ["stopped"]
    remove()
    assert in_flight.list() == []


def test_a_stop_is_known_while_lists_are_read_by_other_threads() -> None:
    in_flight, is_done = InFlight(), threading.Event()

    def read() -> None:
        while not is_done.is_set():
            in_flight.list()

    with ThreadPoolExecutor() as pool:
        reading = pool.submit(read)
        for number in range(500):
            in_flight.add(record_of(str(number)), watch(None))()
        is_done.set()
        reading.result(20)
