"""Central tools in all formats, under each server.

Workers that end, a database that is away, many at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conftest import Start, providers
from tests.support.mcp import ScriptedMcp, result
from tests.support.server import KEEPALIVE_SECONDS, TIMEOUT_SECONDS, Client, Server, check_log, wait_until
from tests.support.tool_dialects import (
    ADD,
    CALLS,
    DIALECTS,
    ENDS,
    Answer,
    Call,
    ToolDialect,
    newest_record,
    outcomes,
)
from tests.support.upstream import WAIT_FOR_CLOSE, ReceivedRequest, Step, Upstream, http_response
from tests.tools.conftest import StartBridge


@pytest.fixture(scope="module")
def shared_server_of_kind(
    shared_upstream: Upstream,
    shared_docs: Upstream,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Server]:
    kind: str = request.param
    settings = {
        "providers": providers(shared_upstream.url),
        "keepalive_interval": KEEPALIVE_SECONDS,
        "drain_delay": 0,
        "mcp_servers": [{"name": "docs", "url": ScriptedMcp(shared_docs).url}],
    }
    server = Server(tmp_path_factory.mktemp(kind), settings, kind=kind, is_forked=True)
    yield server.wait_ready("/readyz")
    server.stop()


@pytest.fixture
def server(shared_server_of_kind: Server, upstream: Upstream, docs: ScriptedMcp) -> Iterator[Server]:
    """A bridge that offers the tools of `docs`, under the server that the test names."""
    yield shared_server_of_kind
    shared_server_of_kind.disconnect()


def under(*kinds: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("shared_server_of_kind", kinds, indirect=True, scope="module")


@under("gthread", "sync", "waitress")
def test_a_dialogue_runs_on_every_server(
    api: ToolDialect, server: Server, upstream: Upstream, streaming: bool
) -> None:
    api.enqueue(upstream, streaming, CALLS, ENDS)
    status, body, whole, id = server.post(api.path, api.request(streaming))
    assert (status, whole) == (200, True)
    assert api.read(body, streaming).text.endswith("It is 3.")
    assert len(server.record(id)["token_usages"]) == 2


@under("gthread", "waitress")
def test_a_client_that_leaves_stops_the_tool_in_threads_too(
    api: ToolDialect, server: Server, upstream: Upstream, docs: ScriptedMcp
) -> None:
    """waitress lends no socket: there the next ping finds out."""
    docs.enqueue("tools/call", WAIT_FOR_CLOSE)
    api.enqueue(upstream, True, CALLS)
    client = server.connect()
    client.send("POST", api.path, api.request(True))
    wait_until(lambda: bool(docs.requests("tools/call")))
    client.close()
    wait_until(lambda: bool(docs.requests("notifications/cancelled")))


PRICE = {"input": 5.0, "output": 25.0}
FIRST_COST = 10 * 5 + 2 * 5 + 5 * 25  # the cached tokens have no price of their own
COST_MICROS = FIRST_COST + (20 * 5 + 2 * 5 + 6 * 25)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=["term", "hup", "kill"])
def test_a_worker_that_ends_while_a_tool_runs(
    api: ToolDialect,
    start_toolbridge: StartBridge,
    upstream: Upstream,
    docs: ScriptedMcp,
    sign: signal.Signals,
) -> None:
    server = start_toolbridge(keepalive_interval=KEEPALIVE_SECONDS, prices={api.model: PRICE})
    go, (worker,) = threading.Event(), server.workers()
    docs.on["tools/call"].append(lambda request: iter([go, result(request, {"content": []})]))
    api.enqueue(upstream, True, CALLS, ENDS)
    client = server.connect()
    client.send("POST", api.path, api.request(True))
    client.head()
    received = b""
    while api.keepalive not in received:  # what was recorded 100 ms ago is durable
        received += client.chunk()
    os.kill(worker if sign == signal.SIGKILL else server.process.pid, sign)
    if sign == signal.SIGHUP:
        wait_until(lambda: set(server.workers()) - {worker} != set())
    go.set()
    rest, whole = client.chunks()
    is_killed = sign == signal.SIGKILL
    assert (whole, api.has_last_event(received + rest)) == (not is_killed, not is_killed)
    if sign == signal.SIGTERM:
        assert server.process.wait(TIMEOUT_SECONDS) == 0
    else:
        wait_until(lambda: bool(newest_record(server)["ended_at"]))
    with contextlib.closing(sqlite3.connect(server.folder / "records.db")) as database:
        ends = database.execute("SELECT error_type, cost_micros FROM interceptions").fetchall()
        counts = [
            database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("token_usages", "tool_usages")
        ]
    assert ends == [("interrupted", FIRST_COST) if is_killed else ("", COST_MICROS)]
    assert counts == [1 if is_killed else 2, 1]
    check_log(server.log.read_text())


def test_a_database_that_is_away_while_a_tool_runs_delays_nobody(
    api: ToolDialect, start_toolbridge: StartBridge, upstream: Upstream, docs: ScriptedMcp
) -> None:
    server = start_toolbridge(prices={api.model: PRICE})
    go = threading.Event()
    docs.on["tools/call"].append(lambda request: iter([go, http_response(500, b"")]))
    api.enqueue(upstream, True, CALLS, ENDS)
    client = server.connect()
    client.send("POST", api.path, api.request(True))
    wait_until(lambda: bool(docs.requests("tools/call")))
    with contextlib.closing(sqlite3.connect(server.folder / "records.db", isolation_level=None)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        go.set()
        client.head()
        assert client.chunks()[1]
        lock.execute("ROLLBACK")
    record = newest_record(server)
    assert outcomes(record) == [("call_1", "the MCP server answered with status 500")]
    assert (len(record["token_usages"]), record["error_type"], record["cost_micros"]) == (2, "", COST_MICROS)


class NumberedClients:
    """Clients that ask for three rounds each; every part of a dialogue holds its client's number.

    The number also picks the format, and whether the answer is streamed.
    """

    def __init__(self, port: int, docs: ScriptedMcp) -> None:
        self._port, self._default_answer = port, docs.default_answer

    def answer_tool(self, name: str, request: dict[str, Any]) -> bytes:
        if name != "tools/call":
            return self._default_answer(name, request)
        number = request["params"]["arguments"]["n"]
        return result(request, {"content": [{"type": "text", "text": f"r{number}"}]})

    def answer_model(self, received: ReceivedRequest) -> list[Step]:
        request = json.loads(received.body)
        api = next(api for api in DIALECTS if api.path.endswith(received.target))
        number = int(api.prompt(request))
        results = [text for _, text in api.tool_results(request)]
        assert results == [f"r{number}"] * len(results)
        round = len(results)
        calls = (Call(f"call_{number}-{round}", ADD, f'{{"n": {number}}}'),) if round < 2 else ()
        return api.steps(Answer(f"m{number}-{round}", calls, f"<{number}>"), request.get("stream", False), 13)

    def ask(self, number: int) -> str:
        """The interception's id."""
        api, streaming = DIALECTS[number % 3], number % 2 == 0
        with contextlib.closing(Client(self._port)) as client:
            client.send("POST", api.path, api.request(streaming, prompt=str(number)))
            status, headers = client.head()
            body, whole = client.body(headers)
        assert (status, whole, api.read(body, streaming).text) == (200, True, f"<{number}>" * 3)
        return headers["x-aibridge-interception-id"]


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_many_at_once_do_not_mix(start: Start, upstream: Upstream, docs: ScriptedMcp, kind: str) -> None:
    """Streams and blocking answers of all formats, three rounds each."""
    threads = ["--threads=64"] if kind == "gthread" else []
    server = start(*threads, kind=kind, mcp_servers=[{"name": "docs", "url": docs.url}])
    server.wait_ready("/readyz")
    clients = NumberedClients(server.port, docs)
    docs.default_answer, upstream.handler = clients.answer_tool, clients.answer_model
    with ThreadPoolExecutor(50) as pool:
        ids = list(pool.map(clients.ask, range(100)))
    server.wait_until_applied()
    records = {record["id"]: record for record in server.get("/interceptions?limit=1000")["results"]}
    for number, id in enumerate(ids):
        record = records[id]
        responses = [usage["provider_response_id"] for usage in record["token_usages"]]
        assert responses == [f"m{number}-{round}" for round in range(3)]
        assert outcomes(record) == [(f"call_{number}-{round}", "") for round in range(2)]
        assert [prompt["prompt"] for prompt in record["user_prompts"]] == [str(number)]
    check_log(server.log.read_text())
