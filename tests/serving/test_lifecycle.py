"""The server's life: it drains, reloads and comes back without losing anything."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from aibridge_flask.records import backlog
from tests.conftest import Start
from tests.support.dialogue import ASK, ASK_BLOCKING, BLOCK, END, MESSAGES, START
from tests.support.postgres import Postgres
from tests.support.server import TIMEOUT_SECONDS, Client, Server, wait_until
from tests.support.streams import check_complete, get_status, have_ended, open_streams, records_by_id
from tests.support.upstream import LAST_CHUNK, Upstream, chunk, http_response, stream_head


def test_a_running_stream_outlives_sigterm_and_idle_connections_do_not(
    start: Start, upstream: Upstream
) -> None:
    server = start()
    go = threading.Event()
    upstream.enqueue(http_response(200, b"{}"))
    idle = server.connect()
    idle.send("POST", MESSAGES, ASK_BLOCKING)
    idle.body(idle.head()[1])
    unused = server.connect()
    upstream.enqueue(stream_head(), chunk(START + BLOCK), go, chunk(END), LAST_CHUNK)
    client = server.connect()
    client.send("POST", MESSAGES, ASK)
    client.head()
    assert client.chunk() == START + BLOCK
    server.process.send_signal(signal.SIGTERM)
    assert idle.stream.read() == b""
    assert unused.stream.read() == b""
    go.set()
    assert client.chunks() == (END, True)
    assert server.process.wait(TIMEOUT_SECONDS) == 0
    assert "Traceback" not in server.log.read_text()


def test_records_come_home_into_the_database_s_own_file(server: Server, upstream: Upstream) -> None:
    """They are brought there beside, so that no request waits for the disk."""
    upstream.enqueue(http_response(200, b"{}"))
    client = server.connect()
    client.send("POST", MESSAGES, ASK_BLOCKING)
    id = client.head()[1]["x-aibridge-interception-id"]

    def home() -> bool:
        file = f"file:{server.folder}/records.db?immutable=1"  # read without the log that stands beside it
        found: list[Any] = []
        with (
            contextlib.suppress(sqlite3.DatabaseError),
            contextlib.closing(sqlite3.connect(file, uri=True)) as alone,
        ):  # it may be changing
            found = alone.execute("SELECT status_code FROM interceptions WHERE id = ?", (id,)).fetchall()
        return found == [(200,)]

    wait_until(home)


def test_it_is_not_ready_while_it_drains(start: Start) -> None:
    server = start(drain_delay=2)
    assert get_status(server, "/readyz") == 200
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: get_status(server, "/readyz") == 503)
    wait_until(lambda: get_status(server, "/readyz") == 200)


def test_a_reload_takes_the_new_configuration(start: Start, upstream: Upstream) -> None:
    server = start()
    upstream.handler = lambda heard: [http_response(200, b"{}")]
    assert get_status(server, "/anthropic/v1/models") == 200
    server.configure(providers=[{"type": "anthropic", "enabled": False}])
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: get_status(server, "/anthropic/v1/models") == 503)


BROKEN = ["nonsense = 1\n", "this is no TOML", 'providers = [{type = "openai", keys = [{file = "/gone"}]}]\n']


@pytest.mark.parametrize("broken", BROKEN)
def test_a_reload_with_a_broken_configuration_changes_nothing(
    start: Start, upstream: Upstream, broken: str
) -> None:
    server = start()
    upstream.handler = lambda heard: [http_response(200, b"{}")]
    server.config.write_text(broken)
    before = server.log.read_text().count("Booting worker")
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: server.log.read_text().count("Booting worker") > before)
    wait_until(lambda: server.log.read_text().count("Worker exiting") >= before)
    assert get_status(server, "/anthropic/v1/models") == 200
    assert server.log.read_text().count("the configuration is wrong, the old one stays") == 1
    assert "Traceback" not in server.log.read_text()
    server.configure(providers=[{"type": "anthropic", "enabled": False}])
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: get_status(server, "/anthropic/v1/models") == 503)


def test_a_worker_that_comes_later_has_the_same_configuration(start: Start, upstream: Upstream) -> None:
    server = start()
    upstream.handler = lambda heard: [http_response(200, b"{}")]
    server.config.unlink()
    (first,) = server.workers()
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: server.workers() not in ([], [first]))
    wait_until(lambda: get_status(server, "/anthropic/v1/models") == 200)


def test_a_master_that_takes_over_reads_the_configuration_anew(
    start: Start, upstream: Upstream, tmp_path: Path
) -> None:
    server = start("--pid", str(tmp_path / "pid"))
    server.configure(providers=[{"type": "anthropic", "enabled": False}])
    server.process.send_signal(signal.SIGUSR2)
    wait_until(lambda: server.log.read_text().count("Booting worker") == 2)
    successor = int((tmp_path / "pid.2").read_text())
    try:
        server.stop()
        assert get_status(server, "/anthropic/v1/models") == 503
    finally:
        os.kill(successor, signal.SIGTERM)


def test_no_file_is_left_when_it_is_killed(start: Start, tmp_path: Path) -> None:
    (tmp_path / "temp").mkdir()
    server = start(environ={"TMPDIR": str(tmp_path / "temp")})
    server.process.kill()
    server.process.wait()
    assert list((tmp_path / "temp").iterdir()) == []


def test_a_broken_configuration_ends_the_start_with_one_line(start: Start) -> None:
    with pytest.raises(AssertionError) as caught:
        start(keepalive_interval="soon")
    assert str(caught.value).startswith("aibridge: keepalive_interval: ")
    assert "Traceback" not in str(caught.value)


def test_a_killed_workers_interceptions_are_closed_and_the_others_go_on(
    start: Start, upstream: Upstream
) -> None:
    server = start("--workers", "2")
    go = threading.Event()
    found = open_streams(server, upstream, 50, go)
    wait_until(lambda: [len(one["token_usages"]) for one in records_by_id(server).values()] == [1] * 50)
    os.kill(server.workers()[0], signal.SIGKILL)
    wait_until(lambda: any(not one.is_alive() for one in found))
    go.set()
    for one in found:
        one.join(TIMEOUT_SECONDS)
    whole = {one.id for one in found if one.is_complete}
    cut = {one.id for one in found} - whole
    wait_until(lambda: have_ended(server, whole | cut))
    after = records_by_id(server)
    assert {id for id in after if after[id]["error_type"] == "interrupted"} == cut
    assert cut
    assert all(after[id]["error_type"] == "" for id in whole)
    assert all(after[id]["token_usages"][0]["input_tokens"] == 3 for id in after)
    assert all(after[id]["token_usages"][0]["output_tokens"] == 7 for id in whole)


def test_a_locked_database_pauses_nobody(start: Start, upstream: Upstream) -> None:
    server = start()
    go = threading.Event()
    found = open_streams(server, upstream, 20, go)
    with contextlib.closing(sqlite3.connect(server.folder / "records.db", isolation_level=None)) as lock:
        lock.execute("BEGIN IMMEDIATE")
        begun = time.monotonic()
        go.set()
        found += open_streams(server, upstream, 5, go)  # new ones are served meanwhile
        check_complete(found)
        assert time.monotonic() - begun < 4
        lock.execute("COMMIT")
    wait_until(lambda: have_ended(server, {one.id for one in found}))
    assert {one["error_type"] for one in records_by_id(server).values()} == {""}


def test_postgresql_can_go_and_come_back(
    start: Start, upstream: Upstream, postgres: Postgres, migrated_postgres: str
) -> None:
    server = start(database_url=postgres.new_url(migrated_postgres))
    go = threading.Event()
    found = open_streams(server, upstream, 100, go)
    postgres.halt()
    try:
        go.set()
        found += open_streams(server, upstream, 5, go)
        check_complete(found)
        assert get_status(server, "/readyz") == 200
        assert get_status(server, "/interceptions") == 503
    finally:
        postgres.resume()
    ids = {one.id for one in found}
    wait_until(lambda: get_status(server, "/interceptions") == 200 and have_ended(server, ids))
    after = records_by_id(server)
    assert set(after) == ids
    assert {one["error_type"] for one in after.values()} == {""}
    assert [one["output_tokens"] for id in ids for one in after[id]["token_usages"]] == [7] * 105


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_reload_under_load_loses_no_request(start: Start, upstream: Upstream, workers: str) -> None:
    server = start("--workers", workers)
    upstream.handler = lambda heard: [http_response(200, b'{"id":"msg_1"}')]
    ids: list[str] = []
    wrong: list[object] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            client = Client(server.port)
            client.send("POST", MESSAGES, ASK_BLOCKING)
            got, headers = client.head()
            body = client.body(headers)
            if (got, body) != (200, (b'{"id":"msg_1"}', True)):
                wrong.append((got, body))
            ids.append(headers["x-aibridge-interception-id"])
            client.close()

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    for count in (1, 2):
        server.process.send_signal(signal.SIGHUP)
        expected = count * int(workers)
        wait_until(lambda wanted=expected: server.log.read_text().count("Worker exiting") >= wanted)
    stop.set()
    for client in clients:
        client.join(TIMEOUT_SECONDS)
    assert wrong == []
    query = "SELECT id FROM interceptions WHERE error_type = '' AND ended_at IS NOT NULL"
    with contextlib.closing(sqlite3.connect(server.folder / "records.db")) as database:
        wait_until(lambda: sorted(id for (id,) in database.execute(query)) == sorted(ids))


def test_an_application_loaded_before_the_fork_serves(start: Start, upstream: Upstream) -> None:
    server = start("--preload", "--workers=2")
    for _ in range(4):
        upstream.enqueue(http_response(200, b'{"id":"msg_1"}'))
        client = server.connect()
        client.send("POST", MESSAGES, ASK_BLOCKING)
        status, headers = client.head()
        assert (status, client.body(headers)[1]) == (200, True)
        assert server.record(headers["x-aibridge-interception-id"])["error_type"] == ""


def test_sigterm_under_load_writes_all_records(start: Start, upstream: Upstream) -> None:
    server = start()
    go = threading.Event()
    found = open_streams(server, upstream, 30, go)
    server.process.send_signal(signal.SIGTERM)
    go.set()
    check_complete(found)
    assert server.process.wait(TIMEOUT_SECONDS) == 0
    with contextlib.closing(sqlite3.connect(server.folder / "records.db")) as database:
        rows = database.execute(
            "SELECT status_code, error_type FROM interceptions WHERE ended_at IS NOT NULL"
        ).fetchall()
    assert rows == [(200, "")] * 30
    assert backlog.measure(server.folder / "records.db-spool").bytes == 0


def test_two_workers_can_start_on_an_empty_database(start: Start, upstream: Upstream) -> None:
    server = start("--workers", "2")
    go = threading.Event()
    go.set()
    found = open_streams(server, upstream, 10, go)
    check_complete(found)
    wait_until(lambda: have_ended(server, {one.id for one in found}))
    assert "error" not in server.log.read_text().lower()


@pytest.mark.parametrize(
    "url", ["sqlite:////nowhere/records.db", "postgresql+psycopg://me:secret@127.0.0.1:1/x"]
)
def test_a_database_that_cannot_be_used_ends_the_start_with_one_line(tmp_path: Path, url: str) -> None:
    server = Server(tmp_path, {"database_url": url})
    assert server.process.wait(TIMEOUT_SECONDS) == 1
    told = [line for line in server.log.read_text().splitlines() if not line.startswith("[")]
    assert len(told) == 1
    assert told[0].startswith("aibridge: database_url: ")
    assert "secret" not in told[0]
