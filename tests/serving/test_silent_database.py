"""A database that is silent, half there, or back: no request waits for it, and nothing is lost.

With real processes: gunicorn, PostgreSQL whose processes are stopped.
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
from tests.support.server import TIMEOUT_SECONDS, Server, wait_until
from tests.support.streams import check_complete, get_status, have_ended, open_streams, records_by_id
from tests.support.upstream import Upstream, http_response

BLOCKING = b'{"id":"msg_1","usage":{"input_tokens":3,"output_tokens":7}}'


@pytest.fixture
def url(postgres: Postgres, migrated_postgres: str) -> str:
    return postgres.new_url(migrated_postgres)


def ask(server: Server, count: int, token: str = "") -> tuple[list[str], float]:
    """Asks one after the other; the interceptions, and the longest time that one took."""
    ids, longest = [], 0.0
    for _ in range(count):
        begun = time.monotonic()
        client = server.connect()
        client.send("POST", MESSAGES, ASK_BLOCKING, **({"X_AIBridge_Token": token} if token else {}))
        code, headers = client.head()
        assert (code, client.body(headers)) == (200, (BLOCKING, True))
        longest = max(longest, time.monotonic() - begun)
        ids.append(headers["x-aibridge-interception-id"])
    return ids, longest


def behind(server: Server) -> float:
    """What `readyz` says of the database."""
    told: Any = server.get("/readyz")
    return float(told["records_behind_seconds"])


def steps(upstream: Upstream) -> None:
    """The upstream answers blocking requests at once, and streams at length."""
    upstream.handler = lambda request: [http_response(200, BLOCKING)]


def test_nobody_waits_for_a_silent_database(
    start: Start, upstream: Upstream, postgres: Postgres, url: str
) -> None:
    server = start("--workers=2", database_url=url)
    go = threading.Event()
    found = open_streams(server, upstream, 10, go)
    steps(upstream)
    with postgres.silent():
        ids, longest = ask(server, 30)
        begun = time.monotonic()
        go.set()
        check_complete(found)
        assert max(longest, time.monotonic() - begun) < 2
        wait_until(lambda: behind(server) > 1)
    wait_until(lambda: behind(server) == 0)
    assert have_ended(server, {*ids, *(stream.id for stream in found)})
    after = records_by_id(server)
    assert {record["error_type"] for record in after.values()} == {""}
    assert {usage["output_tokens"] for record in after.values() for usage in record["token_usages"]} == {7}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_while_the_database_is_silent_loses_nothing(
    start: Start, upstream: Upstream, postgres: Postgres, url: str, how: signal.Signals
) -> None:
    server = start(database_url=url)
    steps(upstream)
    with postgres.silent():
        ids, _ = ask(server, 20)
        server.process.send_signal(how)
        server.process.wait(TIMEOUT_SECONDS)
    again = Server(server.folder, server.settings)
    try:
        again.wait_ready()
        wait_until(lambda: have_ended(again, set(ids)))
        assert {record["error_type"] for record in records_by_id(again).values()} == {""}
    finally:
        again.stop()


def test_workers_start_while_the_database_is_away(
    start: Start, upstream: Upstream, postgres: Postgres, url: str
) -> None:
    server = start("--workers=2", database_url=url)
    steps(upstream)
    first, _ = ask(server, 5)
    wait_until(lambda: have_ended(server, set(first)))
    with postgres.silent():
        before = set(server.workers())
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(server.workers()) == 2 and not before & set(server.workers()))
        os.kill(server.workers()[0], signal.SIGKILL)
        wait_until(lambda: len(server.workers()) == 2)
        ids, longest = ask(server, 20)
        assert longest < 2
        assert get_status(server, "/readyz") == 200
    wait_until(lambda: have_ended(server, {*first, *ids}))
    assert "Traceback" not in server.log.read_text()


def test_a_revoked_grant_is_waited_out(start: Start, upstream: Upstream, url: str) -> None:
    owner = url.replace("+psycopg", "")
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS writer")
        connection.execute("CREATE ROLE writer LOGIN")
        connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO writer")
        server = start(database_url=url.replace("://postgres@", "://writer@"), metrics={"enabled": True})
        steps(upstream)
        first, _ = ask(server, 1)
        wait_until(lambda: have_ended(server, set(first)))
        connection.execute("REVOKE ALL ON token_usages FROM writer")
        ids, _ = ask(server, 5)
        wait_until(lambda: "InsufficientPrivilege" in server.log.read_text())
        connection.execute("GRANT ALL ON token_usages TO writer")
        wait_until(lambda: have_ended(server, {*first, *ids}))
        after = records_by_id(server)
        assert [len(after[id]["token_usages"]) for id in ids] == [1] * 5
        server.stop()
        connection.execute("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM writer")
        connection.execute("DROP ROLE writer")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_leaving_with_open_streams_closes_their_interceptions(
    start: Start, upstream: Upstream, how: signal.Signals
) -> None:
    server = start()
    go = threading.Event()
    found = open_streams(server, upstream, 5, go)
    server.process.send_signal(how)
    server.process.wait(TIMEOUT_SECONDS)
    go.set()
    again = Server(server.folder, server.settings)
    try:
        again.wait_ready()
        wait_until(lambda: have_ended(again, {stream.id for stream in found}))
    finally:
        again.stop()


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
    steps(upstream)
    ids, _ = ask(server, 1, token)
    wait_until(lambda: have_ended(server, set(ids)))
    with postgres.silent():
        readers = [threading.Thread(target=get_status, args=(server, "/interceptions")) for _ in range(10)]
        for reader in readers:
            reader.start()
        begun = time.monotonic()
        ask(server, 200, token)
        assert time.monotonic() - begun < 10
    for reader in readers:
        reader.join()
