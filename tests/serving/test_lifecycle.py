"""The server drains, reloads, is killed and restarts, and loses nothing."""

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
from tests.support.server import TIMEOUT_SECONDS, Client, Server, check_log, wait_until
from tests.support.streams import check_complete, get_status, have_ended, open_streams, records_by_id
from tests.support.upstream import LAST_CHUNK, Upstream, chunk, http_response, stream_head


def test_sigterm_closes_idle_connections_and_lets_streams_finish(start: Start, upstream: Upstream) -> None:
    server = start(is_forked=False)
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
    check_log(server.log.read_text())


def test_records_are_checkpointed_into_the_database_file(server: Server, upstream: Upstream) -> None:
    """A thread of its own checkpoints the write-ahead log, so that no request waits for the disk."""
    upstream.enqueue(http_response(200, b"{}"))
    client = server.connect()
    client.send("POST", MESSAGES, ASK_BLOCKING)
    id = client.head()[1]["x-aibridge-interception-id"]

    def is_checkpointed() -> bool:
        file = f"file:{server.folder}/records.db?immutable=1"  # read without the write-ahead log
        rows: list[Any] = []
        with (
            contextlib.suppress(sqlite3.DatabaseError),
            contextlib.closing(sqlite3.connect(file, uri=True)) as database,
        ):  # it may be changing just now
            rows = database.execute("SELECT status_code FROM interceptions WHERE id = ?", (id,)).fetchall()
        return rows == [(200,)]

    wait_until(is_checkpointed)


def test_it_is_not_ready_while_it_drains(start: Start) -> None:
    server = start(drain_delay=2)
    assert get_status(server, "/readyz") == 200
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: get_status(server, "/readyz") == 503)
    wait_until(lambda: get_status(server, "/readyz") == 200)


def test_a_reload_applies_the_new_configuration(start: Start, upstream: Upstream) -> None:
    server = start()
    upstream.handler = lambda received: [http_response(200, b"{}")]
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
    upstream.handler = lambda received: [http_response(200, b"{}")]
    server.config.write_text(broken)
    before = server.log.read_text().count("Booting worker")
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: server.log.read_text().count("Booting worker") > before)
    wait_until(lambda: server.log.read_text().count("Worker exiting") >= before)
    assert get_status(server, "/anthropic/v1/models") == 200
    assert server.log.read_text().count("the configuration is wrong, the old one stays") == 1
    check_log(server.log.read_text())
    server.configure(providers=[{"type": "anthropic", "enabled": False}])
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: get_status(server, "/anthropic/v1/models") == 503)


def test_a_replacement_worker_has_the_same_configuration(start: Start, upstream: Upstream) -> None:
    server = start()
    upstream.handler = lambda received: [http_response(200, b"{}")]
    server.config.unlink()
    (first,) = server.workers()
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: server.workers() not in ([], [first]))
    wait_until(lambda: get_status(server, "/anthropic/v1/models") == 200)


def test_a_new_master_reads_the_configuration_again(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    server = start("--pid", str(tmp_path / "pid"), is_forked=False)
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


def test_only_a_killed_workers_interceptions_are_interrupted(start: Start, upstream: Upstream) -> None:
    server = start("--workers", "2")
    go = threading.Event()
    streams = open_streams(server, upstream, 50, go)
    wait_until(lambda: [len(record["token_usages"]) for record in records_by_id(server).values()] == [1] * 50)
    os.kill(server.workers()[0], signal.SIGKILL)
    wait_until(lambda: any(not stream.is_alive() for stream in streams))
    go.set()
    for stream in streams:
        stream.join(TIMEOUT_SECONDS)
    complete = {stream.id for stream in streams if stream.is_complete}
    cut = {stream.id for stream in streams} - complete
    wait_until(lambda: have_ended(server, complete | cut))
    records = records_by_id(server)
    assert {id for id in records if records[id]["error_type"] == "interrupted"} == cut
    assert cut
    assert all(records[id]["error_type"] == "" for id in complete)
    assert all(records[id]["token_usages"][0]["input_tokens"] == 3 for id in records)
    assert all(records[id]["token_usages"][0]["output_tokens"] == 7 for id in complete)


def test_a_locked_database_delays_no_stream(start: Start, upstream: Upstream) -> None:
    server = start()
    go = threading.Event()
    streams = open_streams(server, upstream, 20, go)
    with contextlib.closing(sqlite3.connect(server.folder / "records.db", isolation_level=None)) as lock:
        lock.execute("BEGIN IMMEDIATE")
        started_at = time.monotonic()
        go.set()
        streams += open_streams(server, upstream, 5, go)  # new ones are served meanwhile
        check_complete(streams)
        assert time.monotonic() - started_at < 4
        lock.execute("COMMIT")
    wait_until(lambda: have_ended(server, {stream.id for stream in streams}))
    assert {record["error_type"] for record in records_by_id(server).values()} == {""}


def test_postgresql_can_be_away_and_return(
    start: Start, upstream: Upstream, postgres: Postgres, migrated_postgres: str
) -> None:
    server = start(database_url=postgres.new_url(migrated_postgres))
    go = threading.Event()
    streams = open_streams(server, upstream, 100, go)
    postgres.halt()
    try:
        go.set()
        streams += open_streams(server, upstream, 5, go)
        check_complete(streams)
        assert get_status(server, "/readyz") == 200
        assert get_status(server, "/interceptions") == 503
    finally:
        postgres.resume()
    ids = {stream.id for stream in streams}
    wait_until(lambda: get_status(server, "/interceptions") == 200 and have_ended(server, ids))
    records = records_by_id(server)
    assert set(records) == ids
    assert {record["error_type"] for record in records.values()} == {""}
    assert [usage["output_tokens"] for id in ids for usage in records[id]["token_usages"]] == [7] * 105


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_reload_under_load_loses_no_request(start: Start, upstream: Upstream, workers: str) -> None:
    server = start("--workers", workers)
    upstream.handler = lambda received: [http_response(200, b'{"id":"msg_1"}')]
    ids: list[str] = []
    unexpected: list[object] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            client = Client(server.port)
            client.send("POST", MESSAGES, ASK_BLOCKING)
            status, headers = client.head()
            body = client.body(headers)
            if (status, body) != (200, (b'{"id":"msg_1"}', True)):
                unexpected.append((status, body))
            ids.append(headers["x-aibridge-interception-id"])
            client.close()

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    for reloads in (1, 2):
        server.process.send_signal(signal.SIGHUP)
        expected = reloads * int(workers)
        wait_until(lambda count=expected: server.log.read_text().count("Worker exiting") >= count)
    stop.set()
    for client in clients:
        client.join(TIMEOUT_SECONDS)
    assert unexpected == []
    query = "SELECT id FROM interceptions WHERE error_type = '' AND ended_at IS NOT NULL"
    with contextlib.closing(sqlite3.connect(server.folder / "records.db")) as database:
        wait_until(lambda: sorted(id for (id,) in database.execute(query)) == sorted(ids))


def test_an_application_loaded_before_the_fork_serves(start: Start, upstream: Upstream) -> None:
    server = start("--preload", "--workers=2", is_forked=False)
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
    streams = open_streams(server, upstream, 30, go)
    server.process.send_signal(signal.SIGTERM)
    go.set()
    check_complete(streams)
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
    streams = open_streams(server, upstream, 10, go)
    check_complete(streams)
    wait_until(lambda: have_ended(server, {stream.id for stream in streams}))
    assert "error" not in server.log.read_text().lower()


@pytest.mark.parametrize(
    "url", ["sqlite:////nowhere/records.db", "postgresql+psycopg://me:secret@127.0.0.1:1/x"]
)
def test_an_unusable_database_ends_the_start_with_one_line(tmp_path: Path, url: str) -> None:
    server = Server(tmp_path, {"database_url": url})
    assert server.process.wait(TIMEOUT_SECONDS) == 1
    lines = [line for line in server.log.read_text().splitlines() if not line.startswith("[")]
    assert len(lines) == 1
    assert lines[0].startswith("aibridge: database_url: ")
    assert "secret" not in lines[0]
