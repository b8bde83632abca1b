"""A database that is silent, partly unusable, or back again: no request waits for it, and nothing is lost.

Runs real processes: gunicorn, and PostgreSQL, whose processes are stopped.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import psycopg
import pytest

from aibridge_flask.records import database as databases
from aibridge_flask.records.tokens import create as create_token
from tests.conftest import Start
from tests.support.dialogue import ASK_BLOCKING, MESSAGES
from tests.support.postgres import Postgres
from tests.support.server import TIMEOUT_SECONDS, Server, check_log, wait_until
from tests.support.streams import check_complete, get_status, have_ended, open_streams, records_by_id
from tests.support.upstream import Upstream, http_response

BLOCKING = b'{"id":"msg_1","usage":{"input_tokens":3,"output_tokens":7}}'


@pytest.fixture
def url(postgres: Postgres, migrated_postgres: str) -> str:
    return postgres.new_url(migrated_postgres)


def send_requests(server: Server, count: int, token: str = "") -> tuple[list[str], float]:
    """Sends `count` requests in turn; returns the interceptions' ids and the longest response time in seconds."""
    ids, longest = [], 0.0
    for _ in range(count):
        started_at = time.monotonic()
        client = server.connect()
        client.send("POST", MESSAGES, ASK_BLOCKING, **({"X_AIBridge_Token": token} if token else {}))
        status, headers = client.head()
        assert (status, client.body(headers)) == (200, (BLOCKING, True))
        longest = max(longest, time.monotonic() - started_at)
        ids.append(headers["x-aibridge-interception-id"])
    return ids, longest


def seconds_behind(server: Server) -> float:
    """How many seconds the database is behind, as `readyz` reports it."""
    readiness: Any = server.get("/readyz")
    return float(readiness["records_behind_seconds"])


def script_blocking(upstream: Upstream) -> None:
    """The upstream answers every new request with a blocking response at once."""
    upstream.handler = lambda request: [http_response(200, BLOCKING)]


def test_no_request_waits_for_a_silent_database(
    start: Start, upstream: Upstream, postgres: Postgres, url: str
) -> None:
    server = start("--workers=2", database_url=url)
    go = threading.Event()
    streams = open_streams(server, upstream, 10, go)
    script_blocking(upstream)
    with postgres.silent():
        ids, longest = send_requests(server, 30)
        started_at = time.monotonic()
        go.set()
        check_complete(streams)
        assert max(longest, time.monotonic() - started_at) < 2
        wait_until(lambda: seconds_behind(server) > 1)
    wait_until(lambda: seconds_behind(server) == 0)
    assert have_ended(server, {*ids, *(stream.id for stream in streams)})
    records = records_by_id(server)
    assert {record["error_type"] for record in records.values()} == {""}
    assert {usage["output_tokens"] for record in records.values() for usage in record["token_usages"]} == {7}


@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_while_the_database_is_silent_loses_nothing(
    start: Start, upstream: Upstream, postgres: Postgres, url: str, stop_signal: signal.Signals
) -> None:
    server = start(database_url=url)
    script_blocking(upstream)
    with postgres.silent():
        ids, _ = send_requests(server, 20)
        server.process.send_signal(stop_signal)
        server.process.wait(TIMEOUT_SECONDS)
    restarted = Server(server.folder, server.settings, is_forked=True)
    try:
        restarted.wait_ready()
        wait_until(lambda: have_ended(restarted, set(ids)))
        assert {record["error_type"] for record in records_by_id(restarted).values()} == {""}
    finally:
        restarted.stop()


def test_workers_start_while_the_database_is_silent(
    start: Start, upstream: Upstream, postgres: Postgres, url: str
) -> None:
    server = start("--workers=2", database_url=url)
    script_blocking(upstream)
    first, _ = send_requests(server, 5)
    wait_until(lambda: have_ended(server, set(first)))
    with postgres.silent():
        before = set(server.workers())
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(server.workers()) == 2 and not before & set(server.workers()))
        os.kill(server.workers()[0], signal.SIGKILL)
        wait_until(lambda: len(server.workers()) == 2)
        ids, longest = send_requests(server, 20)
        assert longest < 2
        assert get_status(server, "/readyz") == 200
    wait_until(lambda: have_ended(server, {*first, *ids}))
    check_log(server.log.read_text())


def test_records_are_written_once_a_revoked_grant_is_back(start: Start, upstream: Upstream, url: str) -> None:
    owner = url.replace("+psycopg", "")
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS writer")
        connection.execute("CREATE ROLE writer LOGIN")
        connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO writer")
        server = start(database_url=url.replace("://postgres@", "://writer@"), metrics={"enabled": True})
        script_blocking(upstream)
        first, _ = send_requests(server, 1)
        wait_until(lambda: have_ended(server, set(first)))
        connection.execute("REVOKE ALL ON token_usages FROM writer")
        ids, _ = send_requests(server, 5)
        wait_until(lambda: "InsufficientPrivilege" in server.log.read_text())
        connection.execute("GRANT ALL ON token_usages TO writer")
        wait_until(lambda: have_ended(server, {*first, *ids}))
        records = records_by_id(server)
        assert [len(records[id]["token_usages"]) for id in ids] == [1] * 5
        server.stop()
        connection.execute("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM writer")
        connection.execute("DROP ROLE writer")


@pytest.mark.parametrize("stop_signal", [signal.SIGINT, signal.SIGQUIT])
def test_stopping_with_open_streams_closes_their_interceptions(
    start: Start, upstream: Upstream, stop_signal: signal.Signals
) -> None:
    server = start()
    go = threading.Event()
    streams = open_streams(server, upstream, 5, go)
    server.process.send_signal(stop_signal)
    server.process.wait(TIMEOUT_SECONDS)
    go.set()
    restarted = Server(server.folder, server.settings, is_forked=True)
    try:
        restarted.wait_ready()
        wait_until(lambda: have_ended(restarted, {stream.id for stream in streams}))
    finally:
        restarted.stop()


def test_readers_of_a_silent_database_starve_nobody(
    start: Start, upstream: Upstream, postgres: Postgres, url: str
) -> None:
    """Neither name resolution, and so new upstream connections, nor known tokens wait for them."""
    provider = {"type": "anthropic", "base_url": upstream.url.replace("127.0.0.1", "localhost")}
    server = start(
        database_url=url, auth={"mode": "token"}, providers=[{**provider, "keys": [{"value": "sk-1"}]}]
    )
    token = create_token(databases.connect(url), "ann", admin=True, days=0)
    server.headers = {"X-AIBridge-Token": token}
    script_blocking(upstream)
    ids, _ = send_requests(server, 1, token)
    wait_until(lambda: have_ended(server, set(ids)))
    with postgres.silent():
        readers = [threading.Thread(target=get_status, args=(server, "/interceptions")) for _ in range(10)]
        for reader in readers:
            reader.start()
        started_at = time.monotonic()
        send_requests(server, 200, token)
        assert time.monotonic() - started_at < 10
    for reader in readers:
        reader.join()
