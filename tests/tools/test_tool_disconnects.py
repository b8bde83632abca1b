"""Central tools in all formats: clients that close the connection while a dialogue runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Start
from tests.support.mcp import ScriptedMcp, result
from tests.support.server import KEEPALIVE_SECONDS, Server, check_log, wait_until
from tests.support.tool_dialects import (
    ADD,
    CALLS,
    DIALECTS,
    Answer,
    Call,
    ToolDialect,
    newest_record,
    outcomes,
)
from tests.support.upstream import WAIT_FOR_CLOSE, Step, Upstream


def test_a_client_that_leaves_before_the_next_answer_ends_the_upstream(
    api: ToolDialect, toolbridge: Server, upstream: Upstream, streaming: bool
) -> None:
    api.enqueue(upstream, streaming, CALLS)
    upstream.enqueue(WAIT_FOR_CLOSE)
    client = toolbridge.connect()
    client.send("POST", api.path, api.request(streaming))
    upstream.wait_for_requests(2)
    client.close()
    assert upstream.peer_closed.wait(20)
    assert newest_record(toolbridge)["error_type"] == "client_closed"


def test_a_client_that_leaves_stops_the_tool_and_the_dialogue(
    api: ToolDialect, toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, streaming: bool
) -> None:
    docs.enqueue("tools/call", WAIT_FOR_CLOSE)
    api.enqueue(upstream, streaming, CALLS)
    client = toolbridge.connect()
    client.send("POST", api.path, api.request(streaming))
    wait_until(lambda: bool(docs.requests("tools/call")))
    client.close()
    wait_until(lambda: bool(docs.requests("notifications/cancelled")))
    record = newest_record(toolbridge)
    assert (record["error_type"], record["token_usages"][0]["output_tokens"]) == ("client_closed", 5)
    assert record["tool_usages"][0]["invocation_error"] == "broken off: the client closed the connection"
    assert len(upstream.requests) == 1


def test_ended_running_and_waiting_calls_have_different_outcomes(
    api: ToolDialect, toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, streaming: bool
) -> None:
    """Of 18 calls one has ended and 16 run, as many as run at once, when the client leaves."""
    docs.on["tools/call"].append(lambda request: [result(request, {"content": []})])
    docs.on["tools/call"] += [lambda request: [WAIT_FOR_CLOSE]] * 16
    calls = tuple(Call(f"call_{number:02}", ADD) for number in range(18))
    api.enqueue(upstream, streaming, Answer("answer_1", calls))
    client = toolbridge.connect()
    client.send("POST", api.path, api.request(streaming))
    wait_until(lambda: len(docs.requests("tools/call")) == 17)
    client.close()
    wait_until(lambda: len(docs.requests("notifications/cancelled")) == 16)
    record = newest_record(toolbridge)
    errors = sorted(error for _, error in outcomes(record))
    closed = "the client closed the connection"
    assert errors == ["", *[f"broken off: {closed}"] * 16, f"not run: {closed}"]
    assert record["error_type"] == "client_closed"
    assert len(docs.requests("tools/call")) == 17


@pytest.mark.parametrize(("kind", "streaming"), [("gevent", True), ("gevent", False), ("gthread", True)])
def test_clients_that_leave_hold_no_file_or_connection(
    start: Start, upstream: Upstream, docs: ScriptedMcp, kind: str, streaming: bool
) -> None:
    """Before the head, while the tool runs, before the second head; in every format."""
    server = start(
        kind=kind, keepalive_interval=KEEPALIVE_SECONDS, mcp_servers=[{"name": "docs", "url": docs.url}]
    )
    server.wait_ready("/readyz")

    def leave(api: ToolDialect, requests: int, *scripts: list[Step]) -> None:
        """The client leaves once upstream and MCP server have got so many requests together."""
        upstream.requests.clear()
        for steps in scripts:
            upstream.enqueue(*steps)
        client = server.connect()
        client.send("POST", api.path, api.request(streaming))
        wait_until(lambda: len(upstream.requests) + len(docs.requests("tools/call")) >= requests)
        client.close()
        wait_until(lambda: bool(newest_record(server)["ended_at"]))
        docs.upstream.requests.clear()

    def leave_everywhere() -> None:
        for api in DIALECTS:
            leave(api, 1, [WAIT_FOR_CLOSE])
            docs.enqueue("tools/call", WAIT_FOR_CLOSE)
            leave(api, 2, api.steps(CALLS, streaming))
            leave(api, 3, api.steps(CALLS, streaming), [WAIT_FOR_CLOSE])

    def open_files() -> int:
        return len(list(Path(f"/proc/{server.workers()[0]}/fd").iterdir()))

    leave_everywhere()
    before = open_files()
    for _ in range(2):
        leave_everywhere()
    wait_until(lambda: open_files() <= before + 1)
    assert upstream.open_connections() <= 1
    check_log(server.log.read_text())
